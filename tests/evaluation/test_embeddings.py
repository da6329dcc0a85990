"""The embeddings file returns what was written and says all that is wrong; prompts are whole."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from merlin.cohort import reports
from merlin.cohort.findings import FINDINGS
from merlin.embeddings import (
    Embeddings,
    encode_images,
    encode_sentences,
    encode_texts,
    load_embeddings,
    prompt_bank,
    save_embeddings,
)

ARRAYS = [f.name for f in fields(Embeddings) if f.name != "meta"]


def unit(rng, *shape):
    x = rng.normal(0, 1, shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def whole():
    """Three studies, two sections, two phecodes, two prompts, D = 4."""
    rng = np.random.default_rng(7)
    return Embeddings(
        study_id=np.array(["s1", "s2", "s3"], dtype=object),
        patient_id=np.array(["p1", "p1", "p2"]),
        site=np.array(["home", "away", "home"]),
        split=np.array(["test", "test", "val"]),
        image=unit(rng, 3, 4),
        findings=unit(rng, 3, 4),
        impression=np.full((3, 4), np.nan, np.float32),
        sections=unit(rng, 3, 2, 4).astype(np.float16),
        section=np.array(["liver", "spleen"]),
        phecode_logits=rng.normal(0, 1, (3, 2)).astype(np.float32),
        phecode=np.array(["008.5", "250.2"]),
        prompt=np.array(["renal cyst", "no renal cyst"]),
        prompt_finding=np.array(["renal_cyst", "renal_cyst"]),
        prompt_kind=np.array(["present", "absent"]),
        prompt_wording=np.array(["reported", "reported"]),
        prompt_embedding=unit(rng, 2, 4),
        meta=dict(model="tiny", checkpoint="abc", tier="phantom"),
    )


def rewrite(path, **changes):
    """The file with arrays replaced, or dropped where the change is None."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files} | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def test_file_returns_what_was_written(tmp_path, whole):
    save_embeddings(tmp_path / "e.npz", whole)
    found = load_embeddings(tmp_path / "e.npz")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
        if name != "study_id":  # objects become plain strings
            assert getattr(found, name).dtype == getattr(whole, name).dtype, name
    assert whole.meta.items() <= found.meta.items()
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


def test_file_holds_no_pickles(tmp_path, whole):
    save_embeddings(tmp_path / "e.npz", whole)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        assert not [k for k in file.files if file[k].dtype == object]
        assert json.loads(str(file["meta"]))["schema"] == 1


def test_pickles_in_a_file_are_not_run(tmp_path, whole):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, site=np.array(["a", None, {}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_embeddings(path)


def test_optional_arrays_may_be_left_out(tmp_path, whole):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    optional = ("findings", "impression", "section", "sections", "phecode", "phecode_logits")
    labels = ("phecode_labels", "finding", "finding_labels", "text_group")
    labels += ("findings_sentences", "impression_sentences")
    rewrite(path, **dict.fromkeys((*optional, *labels)))
    found = load_embeddings(path)
    assert np.isnan(found.findings).all()
    assert np.isnan(found.impression).all()
    assert found.findings.shape == found.impression.shape == (3, 4)
    assert found.sections.shape == (3, 0, 4)
    assert found.phecode_logits.shape == (3, 0)
    assert (len(found.section), len(found.phecode), len(found.finding)) == (0, 0, 0)
    assert found.text_group.tolist() == [0, 1, 2]


def test_every_missing_array_is_named(tmp_path, whole):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, image=None, prompt_kind=None, meta=None)
    with pytest.raises(ValueError, match=r"e\.npz: not a whole embeddings file") as caught:
        load_embeddings(path)
    lines = {line.strip() for line in str(caught.value).splitlines()[1:]}
    assert lines == {"image: missing", "prompt_kind: missing", "meta: missing"}


def test_every_disagreement_is_named_with_both_numbers(tmp_path, whole):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    image = whole.image.copy()
    image[0, 0] = np.inf
    rewrite(
        path,
        image=image,
        study_id=np.array(["s1", "s2", "s1"]),
        split=np.array(["test"]),
        prompt_embedding=whole.prompt_embedding[:1],
    )
    with pytest.raises(ValueError, match=r"e\.npz") as caught:
        load_embeddings(path)
    assert {line.strip() for line in str(caught.value).splitlines()[1:]} == {
        "split: 1 rows, expected 3 as study_id",
        "prompt_embedding: 1 rows, expected 2 as prompt",
        "image: values that are not finite",
        "study_id: the same study more than once",
    }


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (dict(phecode=np.array(["008.5"])), "phecode"),
        (dict(section=np.array(["liver"])), "section"),
        (dict(prompt_embedding=np.zeros((2, 3), np.float32)), "prompt_embedding"),
        (dict(findings=np.zeros((3, 3), np.float32)), "findings"),
        (dict(image=np.zeros(3, np.float32)), "image"),
    ],
)
def test_width_that_disagrees_is_named(tmp_path, whole, change, name):
    """Columns without a code, sections without a name, texts of another space than the images."""
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, **change)
    with pytest.raises(ValueError, match=rf"e\.npz.*\n(.*\n)*  {name}"):
        load_embeddings(path)


def test_rows_selects_by_site_and_split(whole):
    assert whole.rows().tolist() == [0, 1, 2]
    assert whole.rows(site="home").tolist() == [0, 2]
    assert whole.rows(site="home", split="test").tolist() == [0]


class FakeModel:
    """Embeds a text as (its length, number of times a text was encoded before)."""

    def __init__(self):
        self.seen = []
        self.training = False
        self.config = SimpleNamespace(text=SimpleNamespace(embedding_size=2))
        self.encode_text = self

    def tokenize(self, texts):
        self.seen += texts
        ids = torch.tensor([[len(t)] for t in texts])
        return ids, torch.ones_like(ids), torch.tensor([max(len(t) - 5, 0) for t in texts])

    def embed_tokens(self, ids, mask):
        return torch.cat([ids, mask], 1).float()

    def embed_volumes(self, batch):
        assert batch.ndim == 5
        mean = batch.mean((1, 2, 3, 4))
        return mean[:, None], 2 * mean[:, None], None


@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_each_distinct_text_is_encoded_once_and_empty_ones_are_nan(batch_size):
    model = FakeModel()
    texts = ["cyst", "", "normal", "cyst", None, "no ascites"]
    found, n_truncated = encode_texts(model, texts, batch_size=batch_size)
    assert sorted(model.seen) == ["cyst", "no ascites", "normal"]
    np.testing.assert_array_equal(
        found, [[4, 1], [np.nan] * 2, [6, 1], [4, 1], [np.nan] * 2, [10, 1]]
    )
    assert (found.dtype, n_truncated) == (np.float32, 2)  # "normal" and "no ascites" exceed 5


def test_no_texts_give_no_rows():
    found, n_truncated = encode_texts(FakeModel(), ["", ""])
    assert (found.shape, n_truncated) == ((2, 2), 0)
    assert np.isnan(found).all()


def test_batches_of_texts_do_not_depend_on_the_hash_seed():
    """Who shares a batch decides padding, so it must be the same in every process."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from test_embeddings import FakeModel, encode_texts\n"
        "model = FakeModel()\n"
        "encode_texts(model, list('abcdefghij'), batch_size=3)\n"
        "print(*model.seen)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    first, second = (run.communicate(timeout=120)[0].split() for run in runs)
    assert sorted(first) == list("abcdefghij")
    assert first == second


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_images_come_back_in_order_whatever_the_batch(batch_size):
    model = FakeModel()
    image, logits = encode_images(
        model, lambda i: np.full((2, 3, 4), i, np.float32), 5, batch_size=batch_size
    )
    np.testing.assert_array_equal(image[:, 0], np.arange(5))
    np.testing.assert_array_equal(logits[:, 0], 2 * np.arange(5))


def test_model_in_training_mode_is_refused():
    model = FakeModel()
    model.training = True
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        encode_images(model, None, 1)


def test_every_finding_has_prompts_of_each_kind_and_wording():
    rows, version = prompt_bank()
    found = {(finding, kind, wording) for finding, kind, wording, _ in rows}
    expected = {
        (f, k, w) for f in FINDINGS for k in ("present", "absent") for w in ("reported", "novel")
    }
    assert len(FINDINGS) == 30
    assert found == expected
    assert isinstance(version, int)


def test_no_prompt_stands_twice():
    texts = [text for *_, text in prompt_bank()[0]]
    assert len(texts) == len(set(texts))


STOP_WORDS = set(
    "a an and any are as at be by for has have in into is it no not of on one or".split()
)
STOP_WORDS |= set("seen the there to up was were with without within".split())


def report_sentences():
    """All that a phantom report may say, with its slots emptied."""
    sentences = list(reports.NORMAL) + list(reports.HEDGES)
    for fillers in reports.FILLERS.values():
        sentences += fillers
    for degrees in reports.DEGREES:
        sentences += degrees
    for kinds in reports.phrases().values():
        sentences += kinds["present"] + kinds["absent"] + kinds["short"]
    return [re.sub(r"\{\w+\}", " ", s).lower() for s in sentences]


@pytest.mark.parametrize(
    ("finding", "kind", "text"),
    [(f, k, text) for f, k, wording, text in prompt_bank()[0] if wording == "novel"],
)
def test_novel_prompt_says_something_no_report_says(finding, kind, text):
    sentences = report_sentences()
    known = {word for s in sentences for word in re.findall(r"[a-z]+", s)}
    new = set(re.findall(r"[a-z]+", text.lower())) - known - STOP_WORDS
    assert new, f"{finding} {kind}: every word of {text!r} is in the report templates"
    assert not [s for s in sentences if text.lower() in s]


def test_save_does_not_touch_the_arrays_it_is_given(tmp_path, whole):
    before = replace(whole)
    save_embeddings(tmp_path / "e.npz", whole)
    assert whole.study_id.dtype == object
    assert whole.study_id is before.study_id


class Counting(torch.nn.Module):
    """A text tower whose vector of a text is its number of characters, in two directions."""

    config = SimpleNamespace(text=SimpleNamespace(embedding_size=2))

    class encode_text:
        @staticmethod
        def tokenize(texts):
            ids = torch.tensor([[len(t)] for t in texts])
            return ids, torch.ones_like(ids), torch.zeros(len(texts))

    def embed_tokens(self, ids, mask):
        return torch.cat([ids, -ids], 1).float()


def test_sentences_add_up_and_empty_texts_stay_missing():
    texts = ["Liver: Abc. De. Spleen: Abc.", "", "F."]
    found = encode_sentences(Counting(), texts)
    np.testing.assert_array_equal(found[0], [4 + 3, -7])  # "Abc." once, "De."
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[2], [2, -2])


def test_judged_studies_are_internal_ones_or_all_where_no_site_is_so_called(whole):
    assert whole.judged().tolist() == [0, 1]
    named = replace(whole, site=np.array(["internal", "away", "internal"]))
    assert named.judged().tolist() == [0]


def test_labels_come_in_the_asked_order_and_missing_ones_are_unknown(whole):
    labelled = replace(
        whole, finding=np.array(["a", "b"]), finding_labels=np.array([[1, 0], [0, 1], [np.nan, 1]])
    )
    found = labelled.labels_of(["b", "c", "a"])
    np.testing.assert_array_equal(found[0], [0, np.nan, 1])
    np.testing.assert_array_equal(found[:, 1], [np.nan] * 3)


def test_unknown_patients_are_said_to_be_unknown(whole):
    assert whole.unit == "patients"
    assert whole.counts([0, 1]) == {"patients": 1, "test studies": 2}
    alone = replace(whole, patient_id=whole.study_id)
    assert alone.unit == "studies"
    assert alone.counts([0, 1]) == {"test studies, patients unknown": 2}


def test_studies_without_any_code_are_unknown_where_coders_did_not_see_all():
    from pandas import DataFrame

    from merlin.embeddings import study_labels

    studies = DataFrame(
        {"study_id": ["s1", "s2"], "findings": ["a", "a"], "label_ascites": [1.0, np.nan]}
    )
    codes = DataFrame({"study_id": ["s1"], "vocabulary": ["ICD10"], "code": ["I10"]})
    code_map = {("ICD10", "I10"): ("401.1",)}
    phecodes = ["401.1", "401", "250"]
    absent = study_labels(studies, codes, code_map, phecodes)["phecode_labels"]
    np.testing.assert_array_equal(absent, [[1, 1, 0], [0, 0, 0]])
    unknown = study_labels(studies, codes, code_map, phecodes, uncoded="unknown")["phecode_labels"]
    np.testing.assert_array_equal(unknown[0, 0], 1)
    assert np.isnan(unknown[1]).all()  # no code at all
    assert np.isnan(unknown[0, 2])  # a phecode that the map never gives
    none = study_labels(studies, codes[:0], code_map, phecodes)["phecode_labels"]
    assert np.isnan(none).all()
