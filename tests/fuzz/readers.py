"""Every public reader with what it promises: a value by its contract, or its own refusal.

`READERS` names them; `judge` reads one input and raises AssertionError where a promise is broken.
"""

import logging
import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import damage
import numpy as np
import pandas as pd
from hypothesis import strategies as st

from merlin import run
from merlin.data import (
    cells,
    codes,
    extract,
    impression,
    manifest,
    phecodes,
    plausible,
    scan,
    tables,
    volume,
)
from merlin.data.preprocess import Grid, preprocess
from merlin.embeddings import UNIT, load_embeddings
from merlin.evaluation import scores
from merlin.readers import hospital, names, patterns, persons, release, survey
from merlin.readers.survey import look_at
from merlin.run import places
from merlin.training import checkpoint, diseases, official, official_files
from merlin.vocabulary import SPLITS
from merlin.words import shown

LONGEST = 20_000  # bytes of a message
GRID = Grid((12.0, 12.0, 12.0), (6, 6, 6))


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes
    ----------
    inputs : strategy of dict of str to bytes
        Files of one input; the first, or its folder, is what is read.
    read : callable
        (path, way) → sentences that a user would be shown; asserts its value's contract.
    refusals : tuple of types
        What it may raise.
    ways : int
        How many ways to call it there are.
    n : int
        Inputs in the tests.
    """

    inputs: st.SearchStrategy
    read: Callable
    refusals: tuple = ()
    ways: int = 1
    n: int = 40


def read_scan(path, way):
    """A volume, or a row of the survey, which never fails for a scan."""
    path = path.parent if path.suffix == ".dcm" else path
    if way == 2:
        scans, said = volume.find_scans([path])
        assert scans
        row = look_at(("s1", path), grid=GRID, cache_dir=None)
        assert row["status"] in ("ok", "quarantined")
        assert set(row) == set(survey.COLUMNS)
        return [row["reason"], row["notes"], *said]
    found = volume.load_volume(path, assume_hu=way == 1, min_slices=2)
    hu = found.hu
    assert hu.ndim == 3
    assert hu.dtype in (np.int16, np.float32)
    assert min(hu.shape) >= 2
    assert np.isfinite(hu).all()
    assert hu.min() < hu.max()
    assert way == 1 or hu.max() <= plausible.IMPLAUSIBLE_HU
    assert found.affine.shape == (4, 4)
    assert np.isfinite(found.affine).all()
    assert abs(np.linalg.det(found.affine)) > 1e-9
    low, high = plausible.SPACING_RANGE_MM
    assert all(low <= s <= high for s in found.spacing_mm)
    with scan.refusing(path):
        seen = preprocess(found, GRID)
    assert seen.image.shape == GRID.shape
    assert seen.image.dtype == np.float32
    assert 0 <= seen.image.min() <= seen.image.max() <= 1
    assert 0 <= seen.body_fraction <= 1
    return [*found.notes, *seen.notes]


def read_hospital(path, way):
    """A folder's studies without their identifiers: nothing of a header in any table."""
    reports = pd.DataFrame(
        {"accession": ["A1"], "findings": ["Liver: Normal."], "impression": [""]}
    )
    codes = pd.DataFrame([["1", "2015-01-01", "ICD10", "I10"]], columns=hospital.CODE_COLUMNS)
    out, written = path.parent.parent / "out", []
    with patch.object(hospital, "tqdm", lambda parts, **_: parts):  # it prints, as it should
        found = hospital.deidentify(
            path.parent, reports, codes, key=b"k" * 40, out=out, redacts=way == 1,
            save=lambda path, volume: written.append(volume.notes),
        )  # fmt: skip
    tables = (found.manifest, found.codes, found.text_hits, found.quarantine)
    cells = [str(c) for table in tables for row in table.to_numpy() for c in row]
    assert len(found.manifest) == len(written)
    assert len(found.manifest) + len(found.quarantine) > 0
    return [*cells, *found.notes, *(n for notes in written for n in notes)]


def read_embeddings(path, way):
    found = load_embeddings(path)
    n = len(found.study_id)
    assert n == len(set(found.study_id.tolist())) > 0
    for name in ("study_id", "patient_id", "site", "split"):
        ids = getattr(found, name)
        assert ids.shape == (n,)
        assert ids.dtype.kind == "U"
    assert all(i.strip() for i in found.study_id)
    for name in UNIT:
        rows = getattr(found, name)
        assert rows.shape[1] == found.image.shape[1]
        assert rows.dtype == np.float32
        whole = np.isfinite(rows).all(1)
        missing = np.isnan(rows).all(1)
        assert (whole | missing).all()
        assert whole.all() or name not in ("image", "prompt_embedding") or not len(rows)
        assert np.allclose(np.linalg.norm(rows[whole], axis=1), 1, atol=2e-3)
    for labels, columns in (("finding_labels", "finding"), ("phecode_labels", "phecode")):
        values = getattr(found, labels)
        assert values.shape == (n, len(getattr(found, columns)))
        assert np.isin(values[~np.isnan(values)], (0, 1)).all()
    assert isinstance(found.meta, dict)
    assert found.counts(np.arange(n))
    assert found.unit in ("patients", "studies")
    assert found.is_synthetic in (True, False)
    return found.meta.get("notes", [])


def read_one_table(path, way):
    """The reader of tables, and the one that the file's name asks for."""
    kind = path.name.partition(".")[0]
    if way == 0 or kind == "people":
        found = tables.read_table(path)
        assert all(isinstance(c, str) for row in found.to_numpy() for c in row)
        assert found.columns.is_unique
        assert all(isinstance(c, str) and c for c in found.columns)
        assert found.index.is_unique
        return [*found.attrs["notes"], *(read_columns(found) if kind == "people" else ())]
    if kind == "scores":
        return read_scores(path, way)
    if kind == "manifest":
        found = manifest.load_manifest(path, check_files=False)
        assert found["study_id"].is_unique
        assert found["study_id"].map(manifest.names_a_file).all()
        assert set(found["split"]) <= set(SPLITS)
        assert "age" not in found or found["age"].dropna().between(0, 999).all()
        return []
    if way == 1:
        found = codes.read_codes(path, owner="study_id")
        assert found["vocabulary"].map(codes.vocabulary).notna().all() or len(found)
        assert found["code"].str.len().gt(0).all()
        return found.attrs["notes"]
    if way == 2:
        found = codes.read_codes(path, owner="patient_id", dates="dmy")
        assert found["date"].str.fullmatch(r"(\d{4}-\d{2}-\d{2})?").all()
        return found.attrs["notes"]
    found = phecodes.read_code_map(path)
    assert found
    assert all(phecodes.normalise_phecode(p) == p for group in found.values() for p in group)
    return []


def read_columns(table):
    """Each kind of column, refused apart: a refusal of one names the column."""
    for name, read in (
        ("date", cells.read_dates), ("age", cells.read_ages), ("sex", cells.read_sexes),
        ("slice", cells.read_lengths_mm), ("study_id", cells.read_ids),
    ):  # fmt: skip
        if name not in table:
            continue
        try:
            found = read(table[name], where=f"people, column {name}")
        except cells.TableError as error:
            yield str(error)
            continue
        assert len(found) == len(table)
        assert name != "age" or found.dropna().between(0, 130).all()
        assert name != "sex" or set(found) <= {"F", "M", ""}
        assert name != "slice" or (
            np.isfinite(found.dropna()).all() and (found.dropna() >= 0).all()
        )


def read_scores(path, way):
    options = {1: {}, 2: dict(mask_nan=True), 3: dict(threshold=0.3, uncertain="positive")}[way]
    found = scores.read_scores(path, **options)
    n, s, f = len(found.study_id), len(found.score_finding), len(found.finding)
    assert n == len(set(found.study_id)) > 0
    assert found.score.shape == (n, s)
    assert s > 0
    assert not np.isinf(found.score).any()
    assert way == 2 or np.isfinite(found.score).all()
    assert found.threshold.shape == (s,)
    assert np.isfinite(found.threshold).all()
    assert found.finding_labels.shape == (n, f)
    assert np.isin(found.finding_labels[~np.isnan(found.finding_labels)], (0, 1)).all()
    return found.meta["notes"]


def read_data_set(path, way):
    found = release.read_release(path.parent)
    table = found.manifest
    assert len(table) > 0
    assert table["study_id"].is_unique
    assert set(table["split"]) <= set(SPLITS)
    for columns, values in ((manifest.LABELS, "01"), (manifest.FIVE_YEAR, "0123")):
        for name in set(columns) & set(table):
            assert set(table[name].dropna()) <= set(values)
    return list(found.audit["detail"])


def read_profile(path, way):
    """A profile beside the default one, and what the workflow asks of it."""
    home = path.parent / "notebooks" / "profiles"
    home.mkdir(parents=True)
    shutil.copy(run.PROFILES / "default.yaml", home)
    path.rename(home / path.name)
    before = places.ROOT, places.PROFILES
    places.ROOT, places.PROFILES = path.parent, home
    try:
        found = run.load_profile("own")
        assert found.keys() >= {"profile", "tier", "seed", "arms", "sweep"}
        for arm in [*found["arms"], *run.sweep_arms(found), *run.sweep_runs(found)]:
            assert run.NAME.fullmatch(arm)
            assert run.trainings(found, arm)
        for arm in [*found["arms"]][:1]:  # a profile may have none
            run.settings("02_pretraining", {"profile": "own", "arm": arm})
    finally:
        places.ROOT, places.PROFILES = before
    return []


def read_weights(path, way):
    """Headers first; a whole model only where the header is one of ours."""
    if way == 0:
        assert isinstance(checkpoint.file_header(path), dict)
        return []
    if way == 1:
        assert isinstance(checkpoint.read_facts(path), dict)
        return []
    if way == 2:
        model, of, facts = diseases.load_model(path)
        assert isinstance(facts, dict)
        assert all(isinstance(d, str) for d in of)
    elif way == 3:
        model, _, _ = official.load_five_year(path)
    else:
        model, facts = checkpoint.load_weights(path)
        assert isinstance(facts, dict)
    assert not model.training
    return []


def read_official(path, way):
    state = official_files.read_state(path)
    assert all(hasattr(v, "shape") for v in state.values())
    with suppress(ValueError):
        official.kind_of(state)
    return []


def read_report(path, way):
    """What is said of findings in a text: nothing is refused, nothing is lost."""
    text = path.read_text("utf-8")
    if way == 0:
        findings, said = impression.split_impression(text)
        assert isinstance(findings, str)
        assert isinstance(said, str)
        found = extract.label_report(text, sex="F")
        assert all(v in (0.0, 1.0) or np.isnan(v) for v in found.values())
    else:
        found = extract.split_sections(text)
        assert all(body.strip() for body in found.values())
        assert all(s.strip() for s in extract.report_sentences(text))
    return []


PEOPLE = persons.words_of(["Müller^Änne", "山田^太郎", "O'Neil^J"], ["MRN0012345"], ["19500407"])


def read_names(path, way):
    """Who is named in a text: places in it, and what is left when they are replaced."""
    text = path.read_text("utf-8")
    if way == 0:
        spans = names.all_spans(text, persons.Sought(PEOPLE, PEOPLE, PEOPLE))
        assert all(0 <= s.start < s.end <= len(text) for s in spans)
        assert isinstance(patterns.redact(text, spans), str)
    elif way == 1:
        assert names.looks_like(text, PEOPLE) >= 0
    else:
        found = persons.words_of([text[:200]], [text[:60]], [text[:30]], [text[:200]])
        assert isinstance(found.names, frozenset)
    return []


class Files(dict):
    """Files by name; long ones are not printed."""

    def __repr__(self):
        return f"{ {name: raw[:2000] for name, raw in self.items()} }"


READERS = {
    "nifti": Reader(damage.nifti(), read_scan, (scan.UnreadableScan,), 3, 150),
    "dicom": Reader(damage.dicom(), read_scan, (scan.UnreadableScan,), 3, 60),
    "hospital": Reader(damage.dicom(), read_hospital, (hospital.Refused,), 2, 12),
    "npz": Reader(damage.npz(), read_embeddings, (ValueError,), 1, 100),
    "csv": Reader(damage.table(), read_one_table, (ValueError,), 4, 60),
    "xlsx": Reader(damage.table(forms=("xlsx",)), read_one_table, (ValueError,), 4, 15),
    "data set": Reader(damage.data_set(), read_data_set, (manifest.ManifestError,), 1, 20),
    "yaml": Reader(damage.profile(), read_profile, (run.ProfileError,), 1, 15),
    "safetensors": Reader(damage.safetensors(), read_weights, (ValueError,), 5, 40),
    "pt": Reader(damage.official_pt(), read_official, (ValueError,), 1, 40),
    "reports": Reader(damage.report(), read_report, (), 2, 20),
    "names": Reader(damage.report(), read_names, (), 3, 40),
}  # fmt: skip


@contextmanager
def heard():
    """Whatever is said meanwhile, by warnings, loggers and C libraries too: a list of lines."""
    said = []
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        kept = os.dup(1), os.dup(2)
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: said.append(f"a log of {record.name}\n{record.getMessage()}")
        logging.getLogger().addHandler(handler)
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield said
        finally:
            logging.getLogger().removeHandler(handler)
            for number, old in enumerate(kept, 1):
                os.dup2(old, number)
                os.close(old)
            said += [f"a {w.category.__name__}\n{w.message}" for w in warned]
            sink.seek(0)
            said += [f"print\n{t}" for t in sink.read().decode("utf-8", "replace").splitlines()]


def judge(reader, files, way, folder):
    """Read one input and hold the reader to its promises.

    Returns
    -------
    bool
        Whether it was read; False where it was refused.

    Raises
    ------
    AssertionError
        With what was broken, and where.
    """
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    path = folder / next(iter(files))
    message, notes = None, []
    with heard() as said:
        try:
            notes = reader.read(path, way)
        except reader.refusals as error:
            message = str(error)
            where = place_of(error)
        except (Exception, TooSlow) as error:
            raise AssertionError(f"{type(error).__name__} at {place_of(error)}") from error
    if message is not None:
        name = path.parent.name if path.suffix == ".dcm" else path.name
        assert shown(name) in message, f"no file's name in a refusal at {where}: {message[:200]}"
        assert len(message.encode()) <= LONGEST, f"a refusal of {len(message):,} signs at {where}"
    may_quote = path.suffix not in (".nii", ".gz", ".dcm", ".npz")  # tables quote cells, not ids
    for text in [*([message] if message else []), *notes]:
        assert all(map(str.isprintable, text.split("\n"))), f"unprintable: {text[:200]!r}"
        is_quoted = damage.MARK.partition("^")[0].casefold() in text.casefold()
        assert may_quote or not is_quoted, f"a header's text is repeated: {text[:200]!r}"
    assert not said, f"said beside by {said[0][:200]}"
    return message is None


class TooSlow(BaseException):
    """Of the long run's alarm: no `except Exception` may hold it."""


def place_of(error):
    """The package's line that an error came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f"{os.sep}merlin{os.sep}" in f.filename]
    last = (inside or frames)[-1]
    return f"{Path(last.filename).name}:{last.name}: {last.line}"
