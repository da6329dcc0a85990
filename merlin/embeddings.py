"""Volumes, reports and prompts → one embeddings file, which every off-the-shelf evaluation reads.

Writing needs a model (and torch); reading needs NumPy alone. The file is a NumPy `.npz` of plain
arrays without pickles; `docs/embeddings.md` states the schema. Everything is encoded once a
checkpoint; no evaluation encodes again.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from merlin import npz
from merlin.run import atomic, counts, read_yaml, unit
from merlin.vocabulary import SPLITS, plain_splits
from merlin.words import Refusal, shown, without_folders

SCHEMA = 1
PROMPTS = Path(__file__).parent / "evaluation" / "prompts.yaml"

# The file's arrays: axes and type. An axis is as long as the array that names it: n studies, m
# prompts, p phecodes, f findings, k sections; D is the image's. Only REQUIRED ones must be there, and
# all about prompts or none.
ARRAYS = {
    "study_id": ("n", str),
    "patient_id": ("n", str),
    "site": ("n", str),
    "split": ("n", str),
    "image": ("nD", np.float32),
    "findings": ("nD", np.float32),
    "impression": ("nD", np.float32),
    "findings_sentences": ("nD", np.float32),
    "impression_sentences": ("nD", np.float32),
    "section": ("k", str),
    "sections": ("nkD", np.float16),
    "phecode": ("p", str),
    "phecode_logits": ("np", np.float32),
    "phecode_labels": ("np", np.float32),
    "prompt": ("m", str),
    "prompt_finding": ("m", str),
    "prompt_kind": ("m", str),
    "prompt_wording": ("m", str),
    "prompt_embedding": ("mD", np.float32),
    "finding": ("f", str),
    "finding_labels": ("nf", np.float32),
    "text_group": ("n", np.int64),
}
NAMES = [name for name, (_, kind) in ARRAYS.items() if kind is str and name != "prompt"]
NAMED_BY = {"n": "study_id", "m": "prompt", "p": "phecode", "f": "finding", "k": "section"}
REQUIRED = ("study_id", "patient_id", "site", "split", "image")
UNIT = ("image", "findings", "impression", "prompt_embedding")  # sums of sentences are not
TEXTS = ("findings", "impression", "findings_sentences", "impression_sentences")
MISSING = "missing"
BLANK = ("", "nan", "none", "<na>", "nat", "null")  # how pandas and others write a missing text


@dataclass(frozen=True)
class Embeddings:
    """What an embeddings file holds. Text arrays are unit vectors; NaN rows mark missing texts.

    Attributes
    ----------
    study_id, patient_id, site, split : (n,) str
    image : (n, D) float32, unit length
    findings, impression : (n, D) float32
        Each text encoded whole.
    findings_sentences, impression_sentences : (n, D) float32
        The sum of the unit vectors of the text's sentences: what more sentences say weighs more.
    sections : (n, n_sections, D) float16
    section : (n_sections,) str
    phecode_logits : (n, n_phecodes) float32
    phecode : (n_phecodes,) str
    prompt, prompt_finding, prompt_kind, prompt_wording : (m,) str
        Text; finding; `present` or `absent`; `reported` or `novel`.
    prompt_embedding : (m, D) float32
    finding : (f,) str, finding_labels : (n, f) float32
        What the reports state: 1, 0, NaN where they are silent.
    phecode_labels : (n, n_phecodes) float32
        1, 0, NaN.
    text_group : (n,) int64
        Equal numbers mean word-for-word equal findings texts.
    meta : dict
        `model`, `checkpoint` (sha256), `inputs`, `tier` and whatever else the writer records;
        `notes` lists what reading changed.
    """

    study_id: np.ndarray
    patient_id: np.ndarray
    site: np.ndarray
    split: np.ndarray
    image: np.ndarray
    findings: np.ndarray = None
    impression: np.ndarray = None
    sections: np.ndarray = None
    section: np.ndarray = None
    phecode_logits: np.ndarray = None
    phecode: np.ndarray = None
    prompt: np.ndarray = None
    prompt_finding: np.ndarray = None
    prompt_kind: np.ndarray = None
    prompt_wording: np.ndarray = None
    prompt_embedding: np.ndarray = None
    findings_sentences: np.ndarray = None
    impression_sentences: np.ndarray = None
    finding: np.ndarray = None
    finding_labels: np.ndarray = None
    phecode_labels: np.ndarray = None
    text_group: np.ndarray = None
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        """Fill in the arrays that were not given."""
        given = {n: np.shape(v) for n in ARRAYS if (v := getattr(self, n)) is not None}
        lengths = _lengths(given)
        for name in ARRAYS.keys() - given.keys():
            object.__setattr__(self, name, _blank(name, lengths))

    def rows(self, *, site=None, split=None):
        """Positions of the studies of a site and split."""
        keep = np.ones(len(self.study_id), bool)
        if site is not None:
            keep &= self.site == site
        if split is not None:
            keep &= self.split == split
        return np.flatnonzero(keep)

    def judged(self):
        """Positions of the test studies that are judged: internal ones, or all where no site is so called."""
        rows = self.rows(site="internal", split="test")
        rows = rows if len(rows) else self.rows(split="test")
        if not len(rows):
            found = ", ".join(f"{s} {(self.split == s).sum()}" for s in np.unique(self.split))
            raise ValueError(f"no study of split test; found {found} studies (docs/embeddings.md)")
        return rows

    @property
    def unit(self):
        """What intervals resample: patients, or studies where no patient is known."""
        return unit(self.patient_id, self.study_id)

    @property
    def is_synthetic(self):
        """Whether the file says that its studies are phantoms."""
        return self.meta.get("tier") == "phantom" or "synthetic" in str(
            self.meta.get("tier_note", "")
        )

    def counts(self, rows):
        """Numbers for a figure's footer: patients (or that they are unknown), test studies, those left out."""
        n = counts(self.patient_id[rows], self.study_id[rows], "test studies")
        left_out = self.meta.get("n_left_out", 0)
        return n | ({"test studies without a readable volume": left_out} if left_out else {})

    def labels_of(self, findings):
        """(n, len(findings)) labels in that order; NaN for findings that the file does not label."""
        column = {name: j for j, name in enumerate(self.finding)}
        out = np.full((len(self.study_id), len(findings)), np.nan)
        for j, name in enumerate(findings):
            if name in column:
                out[:, j] = self.finding_labels[:, column[name]]
        return out


def _lengths(shapes):
    """Length of each axis, from the shapes of the arrays that name it; no array, no length."""
    lengths = {a: shapes[name][0] if shapes.get(name) else 0 for a, name in NAMED_BY.items()}
    return lengths | {"D": shapes["image"][-1] if shapes.get("image") else 0}


def _blank(name, lengths):
    """What stands for an array that is not there."""
    axes, kind = ARRAYS[name]
    shape = tuple(lengths[a] for a in axes)
    if kind is np.int64:
        return np.arange(*shape)
    return np.full(shape, "" if kind is str else np.nan, "U1" if kind is str else kind)


def save_embeddings(path, embeddings):
    """Write an embeddings file atomically."""
    buffer = io.BytesIO()
    arrays = {name: getattr(embeddings, name) for name in ARRAYS}
    for name, value in arrays.items():
        if value.dtype == object:
            arrays[name] = value.astype(str)
    meta = json.dumps({"schema": SCHEMA, **without_folders(embeddings.meta)}, default=str)
    np.savez(buffer, meta=np.array(meta), **arrays)
    with atomic(path, "wb") as stream:
        stream.write(buffer.getbuffer())


def load_embeddings(path):
    """Read an embeddings file; nothing in it is run, no torch.

    Ids may be bytes, integers or text kept as objects. Rows that are not of unit length are
    normalised, patients without an id become unknown ones (their study alone), zero rows of texts
    become missing texts: `meta["notes"]` says how many.

    Raises
    ------
    ValueError
        Naming everything that is wrong at once: array, rows (counted from 0), what was found, what
        was expected and how to mend it.
    """
    path = Path(path)
    found = {}
    with npz.opened(path) as archive:
        headers, faulty = npz.headers(archive, (*ARRAYS, "meta"))
        shapes = {n: shape for n, (_, shape, _) in headers.items()}
        faulty |= _shape_problems(shapes, faulty)
        lengths = _lengths(shapes)
        is_whole = not {"study_id", "image"} & faulty.keys() and MISSING not in faulty.values()
        for name in headers.keys() - faulty.keys() if is_whole else ():
            axes, kind = ARRAYS.get(name, ("", str))
            try:
                wide = (
                    headers[name][2] == np.float64 and name in UNIT
                )  # may not fit float32 before its length is 1
                value = npz.read(archive, *headers[name], np.float64 if wide else kind)
                found[name] = value.reshape([lengths[a] for a in axes])
                if name == "meta":
                    found[name] = _meta(value)
            except ValueError as error:
                faulty[name] = str(error)
    notes = []
    if "split" in found:
        found["split"], notes = plain_splits(found["split"])
    problems = [f"{n}: {text}" for n, text in faulty.items()]
    problems += _id_problems(found) + _vector_problems(found) + _name_problems(found)
    if problems:
        raise Refusal(
            f"{path.name}: not a whole embeddings file (docs/embeddings.md; rows count from 0)\n  "
            + "\n  ".join(problems)
        )
    notes += (
        _odd_splits(found)
        + _zeros_to_missing(found)
        + _normalise(found)
        + _name_unknown_patients(found)
    )
    meta = {k: v for k, v in found.pop("meta").items() if k != "notes"}
    meta |= {"notes": notes} if notes else {}
    return Embeddings(**found, meta=meta)


def _shape_problems(shapes, unreadable):
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


def _meta(text):
    try:
        meta = _shown(json.loads(str(text.ravel()[0]))) if text.size == 1 else None
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise ValueError("not a JSON object. Save np.array(json.dumps({'model': …, 'tier': …})).")
    return meta


def _shown(value):
    """Values out of JSON, every text as any terminal can show it."""
    if isinstance(value, dict):
        return {shown(k): _shown(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_shown(v) for v in value]
    return shown(value) if isinstance(value, str) else value


def _rows(mask):
    """`rows 3, 8 and 12 more` of a mask."""
    rows = np.flatnonzero(mask)
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:8]))}{more}"


def _is_blank(texts):
    return np.isin(np.char.lower(np.char.strip(texts)), BLANK)


def _id_problems(found):
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
        splits = {}
        for who, split in zip(whose, found["split"], strict=True):
            splits.setdefault(who, set()).add(split)
        mixed = np.array([len(splits[who]) > 1 for who in whose]) & ~_is_blank(found["patient_id"])
        if mixed.any():
            problems.append(
                f"patient_id: the same patient is in several splits, {_rows(mixed)}. One patient, one split."
            )
    return problems


def _vector_problems(found):
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


def _name_problems(found):
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


def _odd_splits(found):
    names, n = np.unique(found["split"], return_counts=True)
    odd = [f"{name} {k}" for name, k in zip(names, n, strict=True) if name not in SPLITS]
    return [f"split: other names than train, val and test: {', '.join(odd)}"] if odd else []


def _zeros_to_missing(found):
    """A text of nothing but zeros has no direction: it counts as missing. Says how many."""
    notes = []
    for name in TEXTS:
        nothing = (found.get(name, np.ones((0, 1))) == 0).all(1)
        if nothing.any():
            found[name][nothing] = np.nan
            notes.append(f"{name}: {nothing.sum()} rows are zero and count as missing texts")
    return notes


def _normalise(found):
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


def _name_unknown_patients(found):
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


def prompt_bank(path=PROMPTS):
    """The versioned prompts as a list of (finding, kind, wording, text), and the version."""
    bank = read_yaml(path)
    rows = [
        (finding, kind, wording, text)
        for finding, kinds in bank["prompts"].items()
        for kind, wordings in kinds.items()
        for wording, texts in wordings.items()
        for text in texts
    ]
    return rows, bank["version"]


def encode_images(model, volumes, n, *, batch_size=16, device="cpu", desc="volumes"):
    """Encode `n` volumes, read one batch at a time.

    Parameters
    ----------
    model : TwoTowers
        In evaluation mode.
    volumes : callable
        Index → (R, A, S) float32.

    Returns
    -------
    image : (n, D) float32
    phecode_logits : (n, n_phecodes) float32
    """
    import torch

    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    images, logits = [], []
    with torch.inference_mode():
        for part in tqdm(
            np.array_split(np.arange(n), -(-n // batch_size)), desc=desc, mininterval=5
        ):
            batch = torch.from_numpy(np.stack([volumes(int(i)) for i in part]))[:, None]
            image, logit, _ = model.embed_volumes(batch.to(device))
            images.append(image.cpu().numpy())
            logits.append(logit.cpu().numpy())
    return np.concatenate(images), np.concatenate(logits)


def encode_texts(model, texts, *, batch_size=128, device="cpu", desc="texts"):
    """Encode texts; each distinct text once, empty ones to NaN.

    Returns
    -------
    embedding : (n, D) float32
    n_truncated : int
        Distinct texts longer than the encoder's maximum.
    """
    import torch

    texts = np.asarray(texts, dtype=object)
    distinct = sorted({t for t in texts if t}, key=lambda t: (len(t), t))
    found, n_truncated = {}, 0
    with torch.inference_mode():
        for start in tqdm(range(0, len(distinct), batch_size), desc=desc, mininterval=5):
            part = distinct[start : start + batch_size]
            ids, mask, lost = model.encode_text.tokenize(part)
            n_truncated += int((lost > 0).sum())
            rows = model.embed_tokens(ids.to(device), mask.to(device)).cpu().numpy()
            found.update(zip(part, rows, strict=True))
    size = model.config.text.embedding_size
    out = np.full((len(texts), size), np.nan, np.float32)
    for i, text in enumerate(texts):
        if text:
            out[i] = found[text]
    return out, n_truncated


def token_lengths(model, texts):
    """Tokens of each text before any cut, and the encoder's limit: `n` and `limit`, for JSON."""
    _, mask, lost = model.encode_text.tokenize(list(texts))
    return {"n": (mask.sum(1) + lost).tolist(), "limit": model.config.text.max_length}


def encode_sentences(model, texts, *, device="cpu", desc="sentences"):
    """Encode texts as the sum of their distinct sentences' unit vectors; empty ones to NaN.

    A text tower that learnt sentences reads a sentence better than a page; and with a contrastive
    loss over sentences, the sum of similarities is a sum of evidence.

    Returns
    -------
    (n, D) float32, not unit length
    """
    from merlin.data.extract import report_sentences

    rows = [report_sentences(t) for t in texts]
    flat, _ = encode_texts(model, [s for row in rows for s in row], device=device, desc=desc)
    parts = np.split(flat, np.cumsum([len(row) for row in rows])[:-1])
    nothing = np.full(model.config.text.embedding_size, np.nan, np.float32)
    return np.stack([part.sum(0) if len(part) else nothing for part in parts])


def study_labels(studies, codes, code_map, phecodes, *, uncoded="absent", rollup="map"):
    """What embeddings will be judged by: findings that reports state, phecodes, equal texts.

    Parameters
    ----------
    studies : DataFrame
        Of a manifest, with `label_<finding>` columns.
    codes : DataFrame
        `study_id, vocabulary, code`.
    code_map : dict
        From `read_code_map`.
    phecodes : sequence of str
    uncoded : {"absent", "unknown"}
    rollup : {"map", "paper"}
        As in `phecode_labels`.

    Returns
    -------
    dict
        `finding`, `finding_labels`, `phecode_labels` and `text_group` of an `Embeddings`.
    """
    from merlin.data.phecodes import phecode_labels

    stated = [c for c in studies if c.startswith("label_") and c != "label_map"]
    ids = studies["study_id"].to_numpy(str)
    _, text_group = np.unique(studies["findings"].fillna("").to_numpy(str), return_inverse=True)
    return dict(
        finding=np.array([c.removeprefix("label_") for c in stated]),
        finding_labels=studies[stated].to_numpy(np.float32),
        phecode_labels=phecode_labels(
            codes, ids, code_map, phecodes, uncoded=uncoded, rollup=rollup
        ),
        text_group=text_group,
    )


def encode_prompts(model, *, device="cpu"):
    """The prompt bank, encoded: the `prompt…` arrays of an `Embeddings`, and the bank's version."""
    rows, version = prompt_bank()
    finding, kind, wording, prompt = (np.array(column) for column in zip(*rows, strict=True))
    found, _ = encode_texts(model, prompt, device=device, desc="prompts")
    names = dict(prompt=prompt, prompt_finding=finding, prompt_kind=kind, prompt_wording=wording)
    return names | {"prompt_embedding": found}, version


def encode_for_headlines(model, studies, volumes, labels, phecodes, *, device="cpu", meta=None):
    """Only what zero-shot findings, phenotypes and retrieval need: volumes, findings and prompts.

    For the small runs of a sweep; `03_embeddings` encodes all there is.

    Parameters
    ----------
    model : TwoTowers
        In evaluation mode.
    studies : DataFrame
        Of a manifest.
    volumes : callable
        Index → (R, A, S) float32.
    labels : dict
        From `study_labels`.
    phecodes : sequence of str
    meta : dict

    Returns
    -------
    Embeddings
        Other texts count as missing.
    """
    image, logits = encode_images(model, volumes, len(studies), batch_size=32, device=device)
    texts = studies["findings"].fillna("")
    prompts, version = encode_prompts(model, device=device)
    return Embeddings(
        **{c: studies[c].to_numpy(str) for c in ("study_id", "patient_id", "site", "split")},
        image=image,
        findings=encode_texts(model, texts, device=device, desc="findings")[0],
        findings_sentences=encode_sentences(
            model, texts, device=device, desc="findings, by sentence"
        ),
        phecode_logits=logits,
        phecode=np.array(phecodes),
        **prompts,
        **labels,
        meta={"prompts": version, **(meta or {})},
    )
