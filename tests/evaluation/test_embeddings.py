"""The embeddings file returns what was written and says all that is wrong; prompts are whole."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch

from merlin.data.extract import label_report
from merlin.embeddings import ARRAYS as SCHEMA
from merlin.embeddings import Embeddings, load_embeddings, save_embeddings
from merlin.phantom import reports
from merlin.phantom.findings import FINDINGS
from merlin.phantom.readers import READERS, reader
from merlin.phantom.remarks import REMARKS
from merlin.training.encode import (
    encode_images,
    encode_prompts,
    encode_texts,
    prompt_bank,
    study_labels,
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


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.array(["s1", "s2", "s3"], object), ["s1", "s2", "s3"]),  # a column of a data frame
        (np.array(["s1", "s1", "s3"], object), None),
        (np.array([b"s1", b"s2", b"s3"]), ["s1", "s2", "s3"]),
        (np.array(["ä1", "ä2", "ä3"]).astype(object), ["ä1", "ä2", "ä3"]),
        (np.char.encode(np.array(["ä1", "b", "c"]), "utf-8"), ["ä1", "b", "c"]),
        (np.array([7, 8, 9]), ["7", "8", "9"]),
        (np.array([7, 8, 9], object), ["7", "8", "9"]),
        (np.array([7.0, 8.0, 9.0]), ["7", "8", "9"]),
        (np.array([["s1"], ["s2"], ["s3"]]), ["s1", "s2", "s3"]),
    ],
)
def test_ids_are_read_as_people_save_them(tmp_path, whole, ids, expected):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, study_id=ids)
    if expected is None:
        with pytest.raises(ValueError, match="study_id: the same study more than once, rows 0, 1"):
            load_embeddings(path)
    else:
        assert load_embeddings(path).study_id.tolist() == expected


def test_many_object_ids_that_repeat_are_read(tmp_path):
    """A pickle writes a text once and then points to it, and breaks long lists into frames."""
    n = 30_000
    patients = np.array([f"patient {i // 7}" for i in range(n)])
    table = pandas.DataFrame({"p": patients})["p"].astype(object).to_numpy()
    vectors = np.tile(np.eye(2, dtype=np.float32), (n // 2, 1))
    ids = {"study_id": np.arange(n), "patient_id": table, "site": np.full(n, "a", object)}
    split = np.full(n, "test", object)
    np.savez(tmp_path / "e.npz", **ids, split=split, image=vectors, meta=np.array("{}"))
    found = load_embeddings(tmp_path / "e.npz")
    assert (found.patient_id == patients).all()
    assert set(found.site) == {"a"}
    assert found.prompt_embedding.shape == (0, 2)


@pytest.mark.parametrize("blank", ["", "nan", " ", "None", "<NA>"])
def test_blank_patients_are_patients_of_their_own_and_counted(tmp_path, whole, blank):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, patient_id=np.array([blank, blank, "s2"]))
    found = load_embeddings(path)
    assert len(set(found.patient_id)) == 3  # not one, and not joined with the patient called s2
    assert found.meta["notes"] == [
        "patient_id: empty for 2 of 3 studies, each a patient of its own"
    ]
    rewrite(path, patient_id=np.full(3, blank))
    found = load_embeddings(path)
    assert found.unit == "studies"
    rewrite(path, patient_id=np.array([1.0, np.nan, np.nan]))
    assert load_embeddings(path).patient_id.tolist() == ["1", "s2", "s3"]


def test_rows_that_are_not_of_unit_length_are_normalised_with_a_note(tmp_path, whole):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    before = load_embeddings(path)
    assert "notes" not in before.meta
    texts = whole.findings * 3
    texts[1] = 0
    rewrite(path, image=whole.image * np.array([[0.5], [1], [40]]), findings=texts)
    found = load_embeddings(path)
    np.testing.assert_allclose(found.image, before.image, atol=1e-6)
    np.testing.assert_allclose(found.findings[[0, 2]], before.findings[[0, 2]], atol=1e-6)
    assert np.isnan(found.findings[1]).all()
    assert found.meta["notes"] == [
        "findings: 1 rows are zero and count as missing texts",
        "image: 2 of 3 rows were not of unit length (0.5 to 40) and were normalised",
        "findings: 2 of 3 rows were not of unit length (3 to 3) and were normalised",
    ]


@pytest.mark.parametrize("start", [1, 3, 40])
def test_a_file_that_lost_its_first_bytes_is_refused_by_name(tmp_path, whole, start):
    save_embeddings(tmp_path / "e.npz", whole)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "e.npz").read_bytes()[start:])
    with pytest.raises(ValueError, match=r"cut\.npz: not a whole \.npz file"):
        load_embeddings(tmp_path / "cut.npz")


@pytest.mark.parametrize(
    ("old", "new"), [(b"{'d", b"{ d"), (b"'shape': (", b"'shape':(("), (b"{'descr'", b"  'descr'")]
)
def test_a_header_of_an_array_that_is_no_python_is_refused_by_the_arrays_name(
    tmp_path, whole, old, new
):
    save_embeddings(tmp_path / "e.npz", whole)
    with (
        zipfile.ZipFile(tmp_path / "e.npz") as old_file,
        zipfile.ZipFile(tmp_path / "f.npz", "w") as file,
    ):
        for name in old_file.namelist():
            raw = old_file.read(name)
            file.writestr(name, raw.replace(old, new, 1) if name == "image.npy" else raw)
    with pytest.raises(ValueError, match=r"f\.npz: not a whole .*\n  image: cannot be read"):
        load_embeddings(tmp_path / "f.npz")


@pytest.mark.parametrize("sign", [0xD800, 0xDFFF, 0x110000, 0xFFFFFFFF])
@pytest.mark.parametrize("name", ["study_id", "prompt", "meta"])
@pytest.mark.parametrize("order", "<>")
def test_text_of_numbers_that_are_no_characters_is_refused(tmp_path, whole, sign, name, order):
    save_embeddings(tmp_path / "e.npz", whole)
    with np.load(tmp_path / "e.npz") as file:
        texts = np.atleast_1d(file[name])
    texts = texts.astype(texts.dtype.newbyteorder(order))
    texts.view(f"{order}u4").flat[0] = sign
    rewrite(tmp_path / "e.npz", **{name: texts})
    with pytest.raises(ValueError, match=f"{name}: numbers that are no characters"):
        load_embeddings(tmp_path / "e.npz")


def test_half_a_pair_in_texts_kept_as_objects_is_refused_too(tmp_path, whole):
    save_embeddings(tmp_path / "e.npz", whole)
    rewrite(tmp_path / "e.npz", prompt=np.array(["a\ud800", "b"], object))
    with pytest.raises(ValueError, match="prompt: numbers that are no characters"):
        load_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_are_read(tmp_path, whole, dtype):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, image=whole.image.astype(dtype)[:, None])  # (n, 1, D), as some encoders give
    found = load_embeddings(path)
    assert found.image.dtype == np.float32
    np.testing.assert_allclose(found.image, whole.image, atol=1e-3)
    assert "notes" not in found.meta


def swapped(array, rows, value):
    out = np.array(array)
    out[rows] = value
    return out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: dict(image=swapped(e.image, [0, 2], 0)), r"image: nothing but zeros in rows 0, 2"),
        (lambda e: dict(image=swapped(e.image, 1, np.nan)), r"image: values .* in row 1\. Encode"),
        (lambda e: dict(prompt_embedding=swapped(e.prompt_embedding, 1, 0)), r"prompt_embedding: .*1"),
        (lambda e: dict(findings=swapped(e.findings, (2, 0), np.nan)), r"findings: .*in row 2\. A miss"),
        (lambda e: dict(findings=swapped(e.findings, (2, 0), np.inf)), r"findings: .*in row 2"),
        (lambda e: dict(image=e.image.astype(str)), r"image: <U32\. Save numbers"),
        (lambda e: dict(image=e.image.astype(object)), r"image: Python objects.*float32"),
        (lambda e: dict(study_id=np.array(["s1", "", "nan"])), r"study_id: empty in rows 1, 2"),
        (lambda e: dict(study_id=np.array([b"s1", b"\xe4", b"s"])), r"study_id: .*utf-8"),
        (lambda e: dict(split=np.array(["test", "", "val"])), r"split: empty in row 1"),
        (lambda e: dict(split=np.array(["test", "val", "val"]), site=np.full(3, "a")),
         r"patient_id: the same patient is in several splits, rows 0, 1"),
        (lambda e: dict(prompt_kind=np.array(["positive", "absent"])), r"prompt_kind: positive in row 0"),
        (lambda e: dict(finding=np.array(["Renal cyst"]), finding_labels=np.ones((3, 1))),
         r"prompt_finding: renal_cyst; finding: Renal cyst\. No name is in both"),
        (lambda e: dict(finding=np.array(["renal_cyst"]), finding_labels=np.array([[1], [-1], [2]])),
         r"finding_labels: -1, 2 in 2 cells, rows 1, 2\. Expected 1, 0"),
        (lambda e: dict(phecode_labels=np.array([[1, 0], [0.5, 0], [1, 1]])), r"phecode_labels: 0\.5"),
        (lambda e: dict(phecode=np.array(["8", "8"])), r"phecode: the same phecode more than once"),
        (lambda e: dict(meta=np.array("model: mine")), r"meta: not a JSON object"),
        (lambda e: dict(meta=np.array(json.dumps([1]))), r"meta: not a JSON object"),
        (lambda e: dict(meta=np.array({"model": "m"})), r"meta: Python objects"),
        (lambda e: dict(meta=np.array("[" * 50_000)), r"meta: not a JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_named_with_its_rows(tmp_path, whole, change, said):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, **change(whole))
    with pytest.raises(
        ValueError, match=rf"e\.npz: not a whole embeddings file.*\n(.*\n)*  {said}"
    ):
        load_embeddings(path)


def test_labels_and_outputs_that_are_no_text_are_whole(tmp_path, whole):
    """One finding's labels as a plain row; labels of codes without outputs."""
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, finding=np.array(["renal_cyst"]), finding_labels=np.array([1, 0, 1]),
            phecode=np.array([8.5, 250]), phecode_logits=None)  # fmt: skip
    found = load_embeddings(path)
    assert found.finding_labels.tolist() == [[1], [0], [1]]
    assert found.phecode.tolist() == ["8.5", "250"]
    assert np.isnan(found.phecode_logits).all()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_file_that_broke_off_says_so(tmp_path, whole, damage):
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    raw = path.read_bytes()
    path.write_bytes(
        {
            "cut": raw[: len(raw) // 2],
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1",
            "flipped": raw.replace(whole.image.tobytes()[:8], b"\0" * 8),
        }[damage]
    )
    with pytest.raises(ValueError, match=r"e\.npz: not a whole .npz file .*copy it again"):
        load_embeddings(path)


def test_no_more_is_made_than_a_file_holds(tmp_path, whole):
    """A header may claim any size, and arrays that are not ours may be of any."""
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000000000), }"
    head += b" " * (117 - len(head)) + b"\n"
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members["image.npy"] = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    members["extra.npy"] = b"not an array"
    for name, wrong in (("bad.npz", True), ("good.npz", False)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, raw in members.items():
                if wrong or member != "image.npy":
                    archive.writestr(member, raw)
                else:
                    array = io.BytesIO()
                    np.save(array, whole.image)
                    archive.writestr(member, array.getvalue())
    with pytest.raises(ValueError, match=r"image: cannot be read \(claims"):
        load_embeddings(tmp_path / "bad.npz")
    assert load_embeddings(tmp_path / "good.npz").image.shape == (3, 4)


def test_other_names_of_splits_are_told(tmp_path, whole):
    path = tmp_path / "e.npz"
    save_embeddings(path, replace(whole, split=np.array(["dev", "dev", "test"])))
    assert load_embeddings(path).meta["notes"] == [
        "split: other names than train, val and test: dev 2"
    ]


def test_missing_test_studies_are_refused_with_the_splits_there_are(whole):
    with pytest.raises(ValueError, match="no study of split test; found train 2, val 1 studies"):
        replace(whole, split=np.array(["train", "train", "val"])).judged()


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
        "image: values that are not finite in row 0. Encode them again, or leave the rows out of "
        "every array.",
        "study_id: the same study more than once, rows 0, 2. Keep one.",
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
        self.encode_text, self.logit_scale = self, torch.zeros(())
        self.reads_tokens = True

    def tokenize(self, texts):
        self.seen += texts
        ids = torch.tensor([[len(t)] for t in texts])
        return ids, torch.ones_like(ids), torch.tensor([max(len(t) - 5, 0) for t in texts])

    def embed_read(self, ids, mask):
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
        (f, k, w)
        for f in FINDINGS
        for k in ("present", "absent")
        for w in ("reported", "paraphrased", "plain")
    }
    assert len(FINDINGS) == 30
    assert found == expected
    assert isinstance(version, int)


def test_a_users_prompts_are_encoded_in_the_place_of_ours(tmp_path):
    file = tmp_path / "authors.csv"
    file.write_text("finding,present,absent\nascites,fluid,no fluid\nascites,ascites,\n")
    found, name = encode_prompts(FakeModel(), file=file)
    assert found["prompt"].tolist() == ["fluid", "no fluid", "ascites"]
    assert found["prompt_kind"].tolist() == ["present", "absent", "present"]
    assert set(found["prompt_wording"]) == {"reported"}  # what headlines are scored with
    assert found["prompt_embedding"][:, 0].tolist() == [5, 8, 7]
    assert name.split()[0] == "authors.csv"


def test_no_prompt_stands_twice():
    texts = [text for *_, text in prompt_bank()[0]]
    assert len(texts) == len(set(texts))


STOP_WORDS = set(
    "a an and any are as at be by for has have in into is it no not of on one or".split()
)
STOP_WORDS |= set("seen the there to up was were with without within".split())


def report_sentences(*, known):
    """All that phantom reports may say of findings, slots emptied; of all readers or of known ones."""
    sentences = ["right left bilateral"]
    sentences += [t for r in REMARKS.values() for t in r.texts + (() if known else r.elsewhere)]
    for fillers in reports.FILLERS.values():
        sentences += fillers["say"] + ([] if known else fillers["elsewhere"])
    for who in (reader(n) for n in READERS if reader(n).is_known or not known):
        sentences += [*who.normal, *who.nothing, *who.hedges, *who.qualifiers, *who.adverbs]
        sentences += [w for kinds in (who.degrees, who.amounts) for ws in kinds for w in ws]
        for words in who.words.values():
            sentences += [*words.present, *words.absent, words.short]
            sentences.append(who.deny.format(it=words.noun, It=words.noun))
    return [re.sub(r"\{\w+\}", " ", s).lower() for s in sentences]


def words_of(sentences):
    return {word for s in sentences for word in re.findall(r"[a-z]+", s.lower())}


@pytest.mark.parametrize(("wording", "known"), [("paraphrased", True), ("plain", False)])
def test_paraphrased_and_plain_prompts_say_something_in_other_words(wording, known):
    sentences = report_sentences(known=known)
    old = words_of(sentences) | STOP_WORDS
    texts = [t for *_, w, t in prompt_bank()[0] if w == wording]
    assert [t for t in texts if not words_of([t]) - old] == []
    assert [t for t in texts if any(t.lower() in s for s in sentences)] == []


def test_reported_prompts_are_in_the_words_of_training_reports():
    old = words_of(report_sentences(known=True)) | STOP_WORDS
    texts = [t for *_, w, t in prompt_bank()[0] if w == "reported"]
    assert {t: words_of([t]) - old for t in texts if words_of([t]) - old} == {}


def test_prompts_state_what_they_are_for():
    for finding, kind, wording, text in prompt_bank()[0]:
        if wording == "reported":
            assert label_report(text, sex="M")[finding] == (kind == "present"), text


def test_save_does_not_touch_the_arrays_it_is_given(tmp_path, whole):
    before = replace(whole)
    save_embeddings(tmp_path / "e.npz", whole)
    assert whole.study_id.dtype == object
    assert whole.study_id is before.study_id


def test_arrays_of_other_schemas_are_left_and_named(tmp_path, whole):
    """As the sums of sentences of older files."""
    path = tmp_path / "e.npz"
    save_embeddings(path, whole)
    rewrite(path, findings_sentences=np.array([{}], dtype=object), mine=np.ones(3))
    found = load_embeddings(path)
    assert "not read, no array of the schema: findings_sentences, mine" in found.meta["notes"]
    np.testing.assert_array_equal(found.findings, whole.findings)


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


def test_the_docs_state_the_schema_that_code_asks():
    """Each array of the table in docs/embeddings.md, with axes and type, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
    stated = {}
    for row in re.findall(
        r"^\| (`.*?`) \| (\(.*?) \|", text.split("What is read")[0], re.MULTILINE
    ):
        kinds = re.findall(r"\(([\w, ]*),?\) (\w+)", row[1])
        names = re.findall(r"`(\w+)`", row[0])
        for name, (axes, kind) in zip(names, kinds * (len(names) // len(kinds)), strict=True):
            is_needed = "optional" not in row[1]
            stated[name] = re.sub(r"[, ]", "", axes), kind, is_needed
    needed = {f.name for f in fields(Embeddings)[:5]} | {"meta"}
    kinds = {str: "str", np.float32: "float32", np.float16: "float16", np.int64: "int"}
    expected = {n: (axes, kinds[kind], n in needed) for n, (axes, kind) in SCHEMA.items()}
    assert stated == expected | {"meta": ("", "str", True)}
