"""One embeddings file, which every off-the-shelf evaluation reads: its schema, written and read.

The file is a NumPy `.npz` of plain arrays without pickles; `docs/embeddings.md` tells writers of other
programs. The fields of `Embeddings` are the schema: all that writes, reads and checks asks them.
Everything is encoded once a checkpoint (`merlin.training.encode`); no evaluation encodes again.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import numpy as np

from merlin import npz
from merlin.files import atomic
from merlin.run.notebook import counts, unit
from merlin.vocabulary import SPLITS, plain_splits
from merlin.words import Refusal, shown, without_folders

SCHEMA = 1
MISSING = "missing"
BLANK = ("", "nan", "none", "<na>", "nat", "null")  # how pandas and others write a missing text


@dataclass(frozen=True)
class Array:
    """What an array of the file is: its axes, type and content.

    An axis is as long as the array that names it (`NAMED_BY`): n studies, m prompts, p phecodes, f
    findings, k sections; D is the image's. Rows may have to be of unit length, and may be a missing
    text: NaN throughout.
    """

    axes: str
    kind: type
    content: str
    is_unit: bool = False
    is_text: bool = False


_BLANK: Any = None  # becomes NaN, or no names


@dataclass(frozen=True)
class Embeddings:
    """What an embeddings file holds: an array a field, and `meta`.

    Only the first five must be there. All arrays about prompts are, or none.
    """

    study_id: Annotated[np.ndarray, Array("n", str, "one row a study")]
    patient_id: Annotated[np.ndarray, Array("n", str, "whom intervals resample")]
    site: Annotated[np.ndarray, Array("n", str, "where the scan was made")]
    split: Annotated[np.ndarray, Array("n", str, "train, val or test")]
    image: Annotated[np.ndarray, Array("nD", np.float32, "of volumes", is_unit=True)]
    findings: Annotated[
        np.ndarray, Array("nD", np.float32, "of texts, each whole", is_unit=True, is_text=True)
    ] = _BLANK
    impression: Annotated[
        np.ndarray, Array("nD", np.float32, "of texts, each whole", is_unit=True, is_text=True)
    ] = _BLANK
    section: Annotated[np.ndarray, Array("k", str, "names")] = _BLANK
    sections: Annotated[np.ndarray, Array("nkD", np.float16, "of each section's text")] = _BLANK
    phecode: Annotated[np.ndarray, Array("p", str, "names")] = _BLANK
    phecode_logits: Annotated[np.ndarray, Array("np", np.float32, "before the sigmoid")] = _BLANK
    phecode_labels: Annotated[np.ndarray, Array("np", np.float32, "1, 0, NaN")] = _BLANK
    prompt: Annotated[np.ndarray, Array("m", str, "texts")] = _BLANK
    prompt_finding: Annotated[np.ndarray, Array("m", str, "what each is about")] = _BLANK
    prompt_kind: Annotated[np.ndarray, Array("m", str, "present or absent")] = _BLANK
    prompt_wording: Annotated[np.ndarray, Array("m", str, "reported, paraphrased or plain")] = (
        _BLANK
    )
    prompt_embedding: Annotated[np.ndarray, Array("mD", np.float32, "of texts", is_unit=True)] = (
        _BLANK
    )
    finding: Annotated[np.ndarray, Array("f", str, "names")] = _BLANK
    finding_labels: Annotated[
        np.ndarray, Array("nf", np.float32, "what reports state: 1, 0, NaN where silent")
    ] = _BLANK
    text_group: Annotated[
        np.ndarray, Array("n", np.int64, "equal for word-for-word equal findings texts")
    ] = _BLANK
    #: `model`, `checkpoint` (sha256), `inputs`, `tier` and whatever else the writer records; `notes`
    #: lists what reading changed.
    meta: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the arrays that were not given."""
        given = {n: np.shape(v) for n in ARRAYS if (v := getattr(self, n)) is not None}
        lengths = _lengths(given)
        for name in ARRAYS.keys() - given.keys():
            object.__setattr__(self, name, _blank(name, lengths))

    def rows(self, *, site: str | None = None, split: str | None = None) -> np.ndarray:
        """Positions of the studies of a site and split."""
        keep = np.ones(len(self.study_id), bool)
        if site is not None:
            keep &= self.site == site
        if split is not None:
            keep &= self.split == split
        return np.flatnonzero(keep)

    def judged(self) -> np.ndarray:
        """Positions of the test studies that are judged: internal ones, or all where no site is so called."""
        rows = self.rows(site="internal", split="test")
        rows = rows if len(rows) else self.rows(split="test")
        if not len(rows):
            found = ", ".join(f"{s} {(self.split == s).sum()}" for s in np.unique(self.split))
            raise ValueError(f"no study of split test; found {found} studies (docs/embeddings.md)")
        return rows

    @property
    def unit(self) -> str:
        """What intervals resample: patients, or studies where no patient is known."""
        return unit(self.patient_id, self.study_id)

    @property
    def is_synthetic(self) -> bool:
        """Whether the file says that its studies are phantoms."""
        note = str(self.meta.get("tier_note", ""))
        return self.meta.get("tier") == "phantom" or "synthetic" in note

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """Numbers for a figure's footer: patients (or that they are unknown), test studies, those left out."""
        n = counts(self.patient_id[rows], self.study_id[rows], "test studies")
        left_out = self.meta.get("n_left_out", 0)
        return n | ({"test studies without a readable volume": left_out} if left_out else {})

    def labels_of(self, findings: Sequence[str]) -> np.ndarray:
        """(n, len(findings)) labels in that order; NaN for findings that the file does not label."""
        column = dict(zip(self.finding, self.finding_labels.T.astype(float), strict=True))
        unknown = np.full(len(self.study_id), np.nan)
        out = [column.get(name, unknown) for name in findings]
        return np.stack(out, axis=1) if out else np.empty((len(unknown), 0))


_ANNOTATED = get_type_hints(Embeddings, include_extras=True)
_SCHEMA = {f.name: _ANNOTATED[f.name].__metadata__[0] for f in fields(Embeddings)[:-1]}
REQUIRED = tuple(f.name for f in fields(Embeddings)[:-1] if f.default is not _BLANK)
ARRAYS = {name: (array.axes, array.kind) for name, array in _SCHEMA.items()}
NAMED_BY = {"n": "study_id", "m": "prompt", "p": "phecode", "f": "finding", "k": "section"}
NAMES = [name for name, (_, kind) in ARRAYS.items() if kind is str and name != "prompt"]
UNIT = tuple(name for name, array in _SCHEMA.items() if array.is_unit)
TEXTS = tuple(name for name, array in _SCHEMA.items() if array.is_text)


def _lengths(shapes: dict[str, tuple]) -> dict[str, int]:
    """Length of each axis, from the shapes of the arrays that name it; no array, no length."""
    lengths = {a: shapes[name][0] if shapes.get(name) else 0 for a, name in NAMED_BY.items()}
    return lengths | {"D": shapes["image"][-1] if shapes.get("image") else 0}


def _blank(name: str, lengths: dict[str, int]) -> np.ndarray:
    """What stands for an array that is not there."""
    axes, kind = ARRAYS[name]
    shape = tuple(lengths[a] for a in axes)
    if kind is np.int64:
        return np.arange(*shape)
    return np.full(shape, "" if kind is str else np.nan, "U1" if kind is str else kind)


def save_embeddings(path: str | Path, embeddings: Embeddings) -> None:
    """Write an embeddings file atomically."""
    buffer = io.BytesIO()
    arrays = {name: getattr(embeddings, name) for name in ARRAYS}
    for name, value in arrays.items():
        if value.dtype == object:
            arrays[name] = value.astype(str)
    meta = json.dumps({"schema": SCHEMA} | without_folders(embeddings.meta), default=str)
    np.savez(buffer, meta=np.array(meta), **arrays)
    with atomic(path, "wb") as stream:
        stream.write(buffer.getbuffer())


def load_embeddings(path: str | Path) -> Embeddings:
    """Read an embeddings file; nothing in it is run, no torch.

    Ids may be bytes, integers or text kept as objects. Rows that are not of unit length are
    normalised, patients without an id become unknown ones (their study alone), zero rows of texts
    become missing texts, arrays that the schema does not know are left: `meta["notes"]` says so.

    Raises
    ------
    ValueError
        Naming everything that is wrong at once: array, rows (counted from 0), what was found, what
        was expected and how to mend it.
    """
    path = Path(path)
    found: dict[str, Any] = {}
    with npz.opened(path) as archive:
        known = {f"{name}.npy" for name in (*ARRAYS, "meta")}
        extra = [n.removesuffix(".npy") for n in archive.namelist() if n not in known]
        headers, faulty = npz.headers(archive, (*ARRAYS, "meta"))
        shapes = {n: shape for n, (_, shape, _) in headers.items()}
        faulty |= _shape_problems(shapes, faulty)
        lengths = _lengths(shapes)
        is_whole = not {"study_id", "image"} & faulty.keys() and MISSING not in faulty.values()
        for name in headers.keys() - faulty.keys() if is_whole else ():
            axes, kind = ARRAYS.get(name, ("", str))
            if headers[name][2] == np.float64 and name in UNIT:
                kind = np.float64  # may not fit float32 before its length is 1
            try:
                value = npz.read(archive, headers[name], kind)
                found[name] = value.reshape([lengths[a] for a in axes])
                if name == "meta":
                    found[name] = _meta(value)
            except ValueError as error:
                faulty[name] = str(error)
    notes: list[str] = []
    if "split" in found:
        found["split"], notes = plain_splits(found["split"])
    if extra:
        notes.append(f"not read, no array of the schema: {shown(', '.join(sorted(extra)), 200)}")
    problems = [f"{n}: {text}" for n, text in faulty.items()]
    problems += _id_problems(found) + _vector_problems(found) + _name_problems(found)
    if problems:
        raise Refusal(
            f"{path.name}: not a whole embeddings file (docs/embeddings.md; rows count from 0)\n  "
            + "\n  ".join(problems)
        )
    notes += _odd_splits(found) + _zeros_to_missing(found)
    notes += _normalise(found) + _name_unknown_sites(found) + _name_unknown_patients(found)
    meta = {k: v for k, v in found.pop("meta").items() if k != "notes"}
    meta |= {"notes": notes} if notes else {}
    return Embeddings(**found, meta=meta)


def _shape_problems(shapes: dict[str, tuple], unreadable: dict[str, str]) -> dict[str, str]:
    """Arrays that are missing, and those whose lengths disagree with what names their axes."""
    prompts = [n for n, (axes, _) in ARRAYS.items() if "m" in axes]
    needed = [*REQUIRED, *(prompts if set(prompts) & set(shapes) else ()), "meta"]
    problems = {n: MISSING for n in needed if n not in shapes and n not in unreadable}
    if problems or {"study_id", "image"} & unreadable.keys():
        return problems
    if len(shapes["image"]) < 2 and shapes["study_id"][:1] != (1,):
        return {"image": f"shape {shapes['image']}, expected (n, D) with n as study_id"}
    lengths = _lengths(shapes)
    if not lengths["n"]:
        problems["study_id"] = "no studies"
    for name, (axes, _) in ARRAYS.items():
        shape, want = shapes.get(name), tuple(lengths[a] for a in axes)
        # An axis of length one may be missing, or one too many, as in (n, 1, D).
        if shape is None or [x for x in shape if x != 1] == [x for x in want if x != 1]:
            continue
        if len(shape) == len(want) and shape[0] != want[0]:
            by = NAMED_BY[axes[0]]
            problems[name] = f"{shape[0]} rows, expected {want[0]} as {by}"
        else:
            by = ", ".join(NAMED_BY.get(a, "image") for a in axes)
            problems[name] = f"shape {shape}, expected {want} as {by}"
    return problems


def _meta(text: np.ndarray) -> dict:
    try:
        meta = _shown(json.loads(str(text.ravel()[0]))) if text.size == 1 else None
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise ValueError("not a JSON object. Save np.array(json.dumps({'model': …, 'tier': …})).")
    return meta


def _shown(value: Any) -> Any:
    """Values out of JSON, every text as any terminal can show it."""
    if isinstance(value, dict):
        return {shown(k): _shown(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_shown(v) for v in value]
    return shown(value) if isinstance(value, str) else value


def _rows(mask: np.ndarray) -> str:
    """`rows 3, 8 and 12 more` of a mask."""
    rows = np.flatnonzero(mask)
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:8]))}{more}"


def _is_blank(texts: np.ndarray) -> np.ndarray:
    return np.isin(np.char.lower(np.char.strip(texts)), BLANK)


def _id_problems(found: dict[str, Any]) -> list[str]:
    """Studies without a name or named twice, splits that are empty, patients in several splits."""
    problems = []
    for name in (n for n in NAMES if n in found):
        bad = np.array([len(t) > 200 or not t.isprintable() for t in found[name]], bool)
        if bad.any():
            problems.append(
                f"{name}: characters that cannot be seen, or more than 200, in {_rows(bad)}. Write names "
                "in one line of plain signs."
            )
    for name in ("study_id", "split", "prompt_finding", "prompt_kind", "finding", "phecode"):
        blank = _is_blank(found.get(name, np.empty(0, str)))
        if blank.any():
            problems.append(f"{name}: empty in {_rows(blank)}. Each needs one.")
    for name in ("study_id", "finding", "phecode"):
        texts = found.get(name, np.empty(0, str))
        _, where, count = np.unique(texts, return_inverse=True, return_counts=True)
        if (count > 1).any():
            what = "study" if name == "study_id" else name
            problems.append(
                f"{name}: the same {what} more than once, {_rows(count[where] > 1)}. Keep one."
            )
    if {"patient_id", "site", "split"} <= found.keys():
        whose = list(zip(found["site"], found["patient_id"], strict=True))
        n_splits = Counter(who for who, _ in set(zip(whose, found["split"], strict=True)))
        mixed = np.array([n_splits[who] > 1 for who in whose]) & ~_is_blank(found["patient_id"])
        if mixed.any():
            problems.append(
                f"patient_id: the same patient is in several splits, {_rows(mixed)}. One patient, one split."
            )
    return problems


def _vector_problems(found: dict[str, Any]) -> list[str]:
    """Vectors without a direction, values that are not finite, labels that are not 0, 1 or NaN."""
    problems = []
    again = "Encode them again, or leave the rows out of every array."
    for name in ("image", "prompt_embedding", *TEXTS):
        if name not in found:
            continue
        known = np.isfinite(found[name])
        bad, mend = ~known.all(1), again
        if name in TEXTS:
            bad &= ~np.isnan(found[name]).all(1)
            mend = "A missing text is NaN throughout."
        elif (zero := (found[name] == 0).all(1)).any():
            problems.append(f"{name}: nothing but zeros in {_rows(zero)}. {again}")
        if bad.any():
            problems.append(f"{name}: values that are not finite in {_rows(bad)}. {mend}")
    for name in ("finding_labels", "phecode_labels"):
        odd = found.get(name, np.empty((0, 0)))
        is_odd = ~np.isin(odd, (0, 1)) & ~np.isnan(odd)
        if is_odd.any():
            values = ", ".join(f"{v:g}" for v in np.unique(odd[is_odd])[:5])
            problems.append(
                f"{name}: {values} in {is_odd.sum()} cells, {_rows(is_odd.any(1))}. Expected 1, 0, or NaN "
                "for unknown; decide what other values mean, as np.where(labels < 0, np.nan, labels)."
            )
    return problems


def _name_problems(found: dict[str, Any]) -> list[str]:
    """Kinds of prompts that are neither, and prompts about none of the findings that are labelled."""
    problems = []
    kinds = found.get("prompt_kind", np.empty(0, str))
    odd = ~np.isin(kinds, ("present", "absent")) & ~_is_blank(kinds)
    if odd.any():
        values = ", ".join(np.unique(kinds[odd])[:5])
        problems.append(f"prompt_kind: {values} in {_rows(odd)}. Expected present or absent.")
    asked, known = (np.unique(found.get(n, [])) for n in ("prompt_finding", "finding"))
    if len(asked) and len(known) and not np.isin(asked, known).any():
        few = lambda names: ", ".join(map(str, names[:5])) + (" …" if len(names) > 5 else "")  # noqa: E731
        problems.append(
            f"prompt_finding: {few(asked)}; finding: {few(known)}. No name is in both, so no prompt can be "
            "judged. Spell the same finding alike in both arrays."
        )
    return problems


def _odd_splits(found: dict[str, Any]) -> list[str]:
    names, n = np.unique(found["split"], return_counts=True)
    odd = [f"{name} {k}" for name, k in zip(names, n, strict=True) if name not in SPLITS]
    return [f"split: other names than train, val and test: {', '.join(odd)}"] if odd else []


def _zeros_to_missing(found: dict[str, Any]) -> list[str]:
    """A text of nothing but zeros has no direction: it counts as missing. Says how many."""
    notes = []
    for name in TEXTS:
        nothing = (found.get(name, np.ones((0, 1))) == 0).all(1)
        if nothing.any():
            found[name][nothing] = np.nan
            notes.append(f"{name}: {nothing.sum()} rows are zero and count as missing texts")
    return notes


def _normalise(found: dict[str, Any]) -> list[str]:
    """Bring vectors to unit length in place; says how many were not. Equal bits where they were."""
    notes = []
    for name in UNIT:
        if name not in found:
            continue
        largest = np.abs(found[name].astype(float)).max(1, initial=0)
        scale = np.where((largest > 1e100) | (largest < 1e-100), largest, 1.0)  # squares must fit
        length = scale * np.linalg.norm(found[name] / scale[:, None].astype(float), axis=1)
        off = np.abs(length - 1) > 1e-3
        if off.any():
            low, high = length[off].min(), length[off].max()
            found[name][off] = found[name][off] / length[off, None]
            notes.append(
                f"{name}: {off.sum()} of {len(off)} rows were not of unit length ({low:.3g} to "
                f"{high:.3g}) and were normalised"
            )
        found[name] = found[name].astype(np.float32, copy=False)
    return notes


def _name_unknown_sites(found: dict[str, Any]) -> list[str]:
    """Count studies without a site among the training site's, as manifests do; says how many."""
    blank = _is_blank(found["site"])
    if not blank.any():
        return []
    found["site"] = np.where(blank, "internal", np.char.strip(found["site"]))
    return [f"site: empty for {blank.sum()} of {len(blank)} studies, taken for internal ones"]


def _name_unknown_patients(found: dict[str, Any]) -> list[str]:
    """Give a study without a patient one of its own, called as the study; says how many."""
    patient, study = found["patient_id"], found["study_id"]
    blank = _is_blank(patient)
    if not blank.any():
        return []
    taken = set(patient[~blank])
    own = np.array([f"{s} (unknown)" if s in taken else s for s in study])
    found["patient_id"] = np.where(blank, own, patient)
    n = blank.sum()
    return [f"patient_id: empty for {n} of {len(blank)} studies, each a patient of its own"]
