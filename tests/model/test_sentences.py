"""Texts as sums of sentences: read once, the same in any company, and one way for texts of any kind."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from merlin.model.i3d import ImageConfig
from merlin.model.sentences import LIMIT, sentence_tokens, sentence_vectors
from merlin.model.text import TextConfig, load_model, minilm_folder
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import sentence_file
from merlin.training.texts import TextCache, embed_texts

WORDS = ("liver", "spleen", "mass", "cyst", "no", "is", "of", "the", "large")
SENTENCES = [" ".join(WORDS[i % 9] for i in range(k, 2 * k + 3)) for k in range(1, 12)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    image = ImageConfig(depth=14, width=4, n_stages=1, pool="mean", n_phecodes=2, embedding_size=6)
    text = TextConfig(kind="sentences", hidden_size=16, embedding_size=6)
    return TwoTowers(TowersConfig(image, text, (16, 16, 16))).eval()


def test_a_vector_is_minilms_mean_over_tokens_whatever_else_is_encoded():
    tokens, lost = sentence_tokens(SENTENCES)
    found = sentence_vectors(tokens)
    network, tokenizer = load_model(minilm_folder())
    for sentence, row in zip(SENTENCES, found, strict=True):
        with torch.no_grad():
            hidden = network.eval()(**tokenizer(sentence, return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(row, F.normalize(hidden.mean(1), dim=1)[0], atol=1e-6)
    alone = np.concatenate([sentence_vectors([t]) for t in reversed(tokens)])[::-1]
    np.testing.assert_array_equal(found, alone)  # to the last bit
    assert not lost.any()


def test_an_endless_sentence_is_cut_and_its_tokens_counted():
    tokens, lost = sentence_tokens(["liver " * 300, "liver"])
    assert [len(t) for t in tokens] == [LIMIT, 3]
    assert lost.tolist() == [302 - LIMIT, 0]
    assert tokens[0][-1] == tokens[1][-1]  # the end that the tokeniser sets


def test_a_text_is_the_sum_of_its_sentences_each_weighed_by_its_length(model):
    """By hand: frozen vectors, centre, two layers, sum, unit length."""
    texts = ["Liver: Small cyst. Normal size. Spleen: Large mass.", "Large mass.", "no cyst"]
    found = embed_texts(model, texts)
    parts = [["Small cyst.", "Normal size.", "Large mass."], ["Large mass."], ["no cyst"]]
    tower = model.encode_text
    for row, sentences in zip(found, parts, strict=True):
        frozen = torch.tensor(sentence_vectors(sentence_tokens([s.lower() for s in sentences])[0]))
        by_hand = tower.head(F.normalize(frozen - tower.centre, dim=1)).sum(0)
        torch.testing.assert_close(row, F.normalize(by_hand, dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_a_text_has_one_vector_in_any_batch_and_order_of_sentences_says_nothing(model):
    texts = ["Small cyst. Normal.", "Normal. Small cyst.", "Normal.", "4"]
    read = TextCache(model.encode_text)
    together = embed_texts(model, texts, read)
    for text, row in zip(texts, together, strict=True):
        torch.testing.assert_close(embed_texts(model, [text])[0], row, atol=1e-6, rtol=0)
    torch.testing.assert_close(together[0], together[1], atol=1e-6, rtol=0)


def test_the_frozen_model_is_no_part_of_the_weights(model):
    assert not [k for k in model.state_dict() if k.startswith("encode_text.text_encoder")]
    assert {k for k, v in model.encode_text.named_parameters()} == {
        "sum_scale", "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias",
    }  # fmt: skip


def test_only_new_sentences_are_computed_and_all_stay_in_the_file(tmp_path, monkeypatch):
    asked = []
    compute = sentence_file.sentence_vectors

    def counted(tokens, **options):
        asked.append(len(tokens))
        return compute(tokens, **options)

    monkeypatch.setattr(sentence_file, "sentence_vectors", counted)
    first, _ = sentence_file.read_sentences(SENTENCES[:6], tmp_path)
    both, _ = sentence_file.read_sentences(SENTENCES, tmp_path)
    again, _ = sentence_file.read_sentences(SENTENCES[::-1], tmp_path)
    assert asked == [6, 5]
    np.testing.assert_array_equal(first, both[:6])
    np.testing.assert_array_equal(again[::-1], both)
    assert [p.name for p in tmp_path.iterdir()] == [sentence_file.sentence_path(tmp_path).name]


def test_a_damaged_file_of_sentences_is_made_again(tmp_path):
    path = sentence_file.sentence_path(tmp_path)
    path.write_bytes(b"not a file of tensors")
    found, _ = sentence_file.read_sentences(SENTENCES[:2], tmp_path)
    again, _ = sentence_file.read_sentences(SENTENCES[:2], tmp_path)
    np.testing.assert_array_equal(found, again)
    assert path.stat().st_size > 1000
