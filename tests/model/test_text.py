"""Cleaning, tokens, pooling and the three kinds of text encoder."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from merlin.model import text
from merlin.model.text import (
    TextConfig,
    TextEncoder,
    clean_report,
    load_model,
    minilm_folder,
    model_folder,
)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(7)
    config = TextConfig(kind="small", hidden_size=32, n_layers=1, max_length=12, embedding_size=6)
    return TextEncoder(config).eval()


def make_longformer(folder, *, n_layers=2, hidden_size=8, max_length=66):
    """A Longformer of random weights with MiniLM's tokeniser, as a local folder."""
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(7)
    config = LongformerConfig(
        vocab_size=30522, hidden_size=hidden_size, num_hidden_layers=n_layers, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=max_length + 4, attention_window=[8] * n_layers,
        pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    LongformerModel(config).save_pretrained(folder)
    for path in minilm_folder().iterdir():
        if path.is_file() and ("token" in path.name or path.name == "vocab.txt"):
            shutil.copy(path, folder / path.name)
    return folder


@pytest.mark.parametrize(
    ("cleaning", "expected"),
    [
        ("lower_wordpunct", "no 2 . 3 cm cyst ( t2 - bright )."),
        ("lower", "no 2.3 cm cyst (t2-bright)."),
        ("none", "No 2.3 cm cyst (T2-bright)."),
    ],
)
def test_report_is_cleaned_as_stated(cleaning, expected):
    assert clean_report("No 2.3 cm cyst (T2-bright).", cleaning) == expected


def test_word_punctuation_keeps_runs_of_signs_and_drops_line_breaks():
    assert clean_report("LIVER:\n\nNormal...  no_mass") == "liver : normal ... no_mass"


def test_tokens_beyond_the_maximum_are_counted(small):
    """BERT adds two tokens of its own to one a word."""
    texts = ["liver", " ".join(["liver"] * 10), " ".join(["liver"] * 15)]
    ids, mask, lost = small.tokenize(texts)
    assert ids.shape == mask.shape == (3, 12)
    assert mask.sum(1).tolist() == [3, 12, 12]
    assert lost.tolist() == [0, 0, 5]


def test_embedding_of_a_text_does_not_depend_on_its_companions(small):
    with torch.no_grad():
        alone = small(*small.tokenize(["renal cyst"])[:2])
        together = small(*small.tokenize(["renal cyst", "no ascites in the pelvis"])[:2])
    torch.testing.assert_close(alone, together[:1], rtol=1e-5, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_small_encoder_freezes_its_words_and_trains_the_rest(small):
    frozen = [n for n, p in small.named_parameters() if not p.requires_grad]
    assert frozen == ["text_encoder.embeddings.word_embeddings.weight"]
    words = small.text_encoder.embeddings.word_embeddings.weight
    assert words.norm(dim=1).mean() < 1.01  # unit mean norm, less what the projection leaves out


def test_small_encoders_words_keep_minilms_neighbours(small):
    words = small.text_encoder.embeddings.word_embeddings.weight
    ids = small.tokenizer(["kidney", "renal", "car"], add_special_tokens=False)["input_ids"]
    kidney, renal, car = torch.nn.functional.normalize(words[[i[0] for i in ids]], dim=1)
    assert kidney @ renal > kidney @ car + 0.1


def test_frozen_minilm_gives_gradients_to_the_projection_alone():
    model = TextEncoder(TextConfig(kind="minilm", is_frozen=True, max_length=16, embedding_size=6))
    model(*model.tokenize(["renal cyst"])[:2]).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None] == [
        "linear_layer.weight",
        "linear_layer.bias",
    ]


def test_longformer_reads_its_first_token_without_global_attention(tmp_path):
    from transformers import LongformerModel

    folder = make_longformer(tmp_path)
    model = TextEncoder(TextConfig(folder=str(folder), max_length=40, embedding_size=6)).eval()
    ids, mask, _ = model.tokenize(["renal cyst", " ".join(["liver"] * 30)])
    with torch.no_grad():
        hidden = (
            LongformerModel.from_pretrained(folder)
            .eval()(input_ids=ids, attention_mask=mask)
            .last_hidden_state
        )
        expected = model.linear_layer(hidden[:, 0])
        torch.testing.assert_close(model(ids, mask), expected)
        # The second text's last words lie outside the first token's window, so they don't reach it
        # through two layers of four neighbours each.
        far = ids.clone()
        far[1, 20:30] = ids[0, 1]
        torch.testing.assert_close(model(far, mask)[1], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(kind="bert"), "text kind must be one of .*longformer.*; got 'bert'"),
        (dict(cleaning="upper"), "text cleaning must be one of .*lower.*; got 'upper'"),
    ],
)
def test_unknown_choice_is_refused_with_the_choices(change, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**change)


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_missing_folder_says_what_to_put_there(folder):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing.*Clinical-Longformer"):
        TextEncoder(TextConfig(folder=folder))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the packaged model, by links, that is found in the package's place."""
    links = tmp_path / "model"
    links.mkdir()
    for name in text.MINILM:
        (links / name).symlink_to(minilm_folder() / name)
    spec = SimpleNamespace(origin=tmp_path / "__init__.py")
    monkeypatch.setattr(text, "find_spec", lambda name: spec)
    return links


def damaged(path, change):
    raw = bytearray(path.read_bytes())
    path.unlink()
    change(raw)
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_packaged_model_that_is_not_the_known_one_is_refused(package, name):
    assert minilm_folder.__wrapped__() == package
    damaged(package / name, lambda raw: raw.__setitem__(-9, raw[-9] ^ 1))
    with pytest.raises(ValueError, match=rf"{name}: not the file that .* expected .* make setup"):
        minilm_folder.__wrapped__()


def test_a_cut_or_missing_file_of_the_packaged_model_is_refused_too(package):
    damaged(package / "model.safetensors", lambda raw: raw.__delitem__(slice(-100, None)))
    with pytest.raises(ValueError, match=r"model\.safetensors: not the file"):
        minilm_folder.__wrapped__()
    (package / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json: .*no such file"):
        minilm_folder.__wrapped__()


def test_a_folder_runs_no_pickle_and_no_code_of_its_own(tmp_path):
    """Weights as `.bin` are a pickle; `auto_map` names a module of the folder to import."""
    folder = make_longformer(tmp_path / "model")
    marks = tmp_path / "ran"
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "own.C", "AutoModel": "own.M"}
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words["auto_map"] = {"AutoTokenizer": ["own.T", "own.F"]}
    (folder / "own.py").write_text(f"open({str(marks)!r}, 'w')\n")
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    TextEncoder(TextConfig(folder=str(folder)))  # by the library's own classes
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "own"}))
    with pytest.raises(ValueError, match=r"trust_remote_code|does not recognize|model type"):
        TextEncoder(TextConfig(folder=str(folder)))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no weights as \.safetensors; pickled ones"):
        TextEncoder(TextConfig(folder=str(folder)))
    assert not marks.exists()


@pytest.mark.parametrize(
    "name", ["someone/model", "someone/model@main", f"someone/model@{'g' * 40}"]
)
def test_the_hub_is_asked_for_a_commit_alone(tmp_path, monkeypatch, name):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *a, **k: asked.append((a, k["revision"])) or str(make_longformer(tmp_path)),
    )
    with pytest.raises(ValueError, match=r"names no commit, so its files could change. Write hub:"):
        TextEncoder(TextConfig(folder=f"hub:{name}"))
    assert not asked
    TextEncoder(TextConfig(folder=f"hub:someone/model@{'0a' * 20}", embedding_size=6))
    assert asked == [(("someone/model",), "0a" * 20)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("adapter_config.json", "{}", "adapter_config.json changes the model's numbers"),
        ("config.json", '{"num_labels": 5000000}', "num_labels is 5000000, at most 512"),
        ("config.json", '{"sub": {"num_hidden_layers": 99999}}', "num_hidden_layers is 99999"),
        ("config.json", '{"_attn_implementation": "some/kernel"}', "names code to fetch"),
        ("config.json", "[" * 100_000, "no JSON of keys and values (RecursionError)"),
    ],
)
def test_a_folder_that_asks_for_more_than_a_model_is_refused(tmp_path, name, text, said):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        load_model(model_folder(tmp_path, ""))
