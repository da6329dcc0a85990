"""Volumes, reports and prompts → one embeddings file, which every off-the-shelf evaluation reads.

Writing needs a model (and torch); reading needs NumPy alone. The file is a NumPy `.npz` of plain
arrays without pickles; `docs/embeddings.md` states the schema. Everything is encoded once a
checkpoint; no evaluation encodes again.
"""

import io
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from merlin.run import atomic, counts, unit

SCHEMA = 1
PROMPTS = Path(__file__).parent / "evaluation" / "prompts.yaml"


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
        `model`, `checkpoint` (sha256), `inputs`, `tier` and whatever else the writer records.
    """

    study_id: np.ndarray
    patient_id: np.ndarray
    site: np.ndarray
    split: np.ndarray
    image: np.ndarray
    findings: np.ndarray
    impression: np.ndarray
    sections: np.ndarray
    section: np.ndarray
    phecode_logits: np.ndarray
    phecode: np.ndarray
    prompt: np.ndarray
    prompt_finding: np.ndarray
    prompt_kind: np.ndarray
    prompt_wording: np.ndarray
    prompt_embedding: np.ndarray
    findings_sentences: np.ndarray = None
    impression_sentences: np.ndarray = None
    finding: np.ndarray = None
    finding_labels: np.ndarray = None
    phecode_labels: np.ndarray = None
    text_group: np.ndarray = None
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        """Fill in the optional arrays that were not given."""
        for name, value in _blank(len(self.study_id), self.image.shape[1]).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if len(self.phecode) and not self.phecode_labels.shape[1]:
            shape = (len(self.study_id), len(self.phecode))
            object.__setattr__(self, "phecode_labels", np.full(shape, np.nan, np.float32))

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
        return rows if len(rows) else self.rows(split="test")

    @property
    def unit(self):
        """What intervals resample: patients, or studies where no patient is known."""
        return unit(self.patient_id, self.study_id)

    @property
    def is_synthetic(self):
        """Whether the file says that its studies are phantoms."""
        return self.meta.get("tier") == "phantom" or "synthetic" in self.meta.get("tier_note", "")

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


def _blank(n, size):
    """What stands for the optional arrays of a file that lacks them."""
    return {
        "findings": np.full((n, size), np.nan, np.float32),
        "impression": np.full((n, size), np.nan, np.float32),
        "findings_sentences": np.full((n, size), np.nan, np.float32),
        "impression_sentences": np.full((n, size), np.nan, np.float32),
        "section": np.array([], str),
        "sections": np.full((n, 0, size), np.nan, np.float16),
        "phecode": np.array([], str),
        "phecode_logits": np.zeros((n, 0), np.float32),
        "phecode_labels": np.zeros((n, 0), np.float32),
        "finding": np.array([], str),
        "finding_labels": np.zeros((n, 0), np.float32),
        "text_group": np.arange(n),
    }


_ARRAYS = tuple(f.name for f in fields(Embeddings) if f.name != "meta")
_OPTIONAL = tuple(_blank(0, 1))


def save_embeddings(path, embeddings):
    """Write an embeddings file atomically."""
    buffer = io.BytesIO()
    arrays = {name: getattr(embeddings, name) for name in _ARRAYS}
    for name, value in arrays.items():
        if value.dtype == object:
            arrays[name] = value.astype(str)
    meta = json.dumps({"schema": SCHEMA, **embeddings.meta}, default=str)
    np.savez(buffer, meta=np.array(meta), **arrays)
    with atomic(path, "wb") as stream:
        stream.write(buffer.getbuffer())


def load_embeddings(path):
    """Read an embeddings file; no pickles, no torch.

    Raises
    ------
    ValueError
        Naming every array that is missing or whose length disagrees.
    """
    path = Path(path)
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    missing = [n for n in (*_ARRAYS, "meta") if n not in found and n not in _OPTIONAL]
    problems = [f"{n}: missing" for n in missing]
    if not problems and found["image"].ndim != 2:
        problems.append(f"image: shape {found['image'].shape}, expected (n, D)")
    if not problems:
        n, m = len(found["study_id"]), len(found["prompt"])
        size = found["image"].shape[1]
        for name, value in _blank(n, size).items():
            if name != "phecode_labels":
                found.setdefault(name, value)
        n_codes = len(found["phecode"])
        found.setdefault("phecode_labels", np.full((n, n_codes), np.nan, np.float32))
        by_study = (
            "patient_id",
            "site",
            "split",
            "image",
            "findings",
            "impression",
            "findings_sentences",
            "impression_sentences",
            "sections",
            "phecode_logits",
            "phecode_labels",
            "finding_labels",
            "text_group",
        )
        by_prompt = ("prompt_finding", "prompt_kind", "prompt_wording", "prompt_embedding")
        problems += [
            f"{k}: {len(found[k])} rows, expected {n} as study_id"
            for k in by_study
            if len(found[k]) != n
        ]
        problems += [
            f"{k}: {len(found[k])} rows, expected {m} as prompt"
            for k in by_prompt
            if len(found[k]) != m
        ]
        texts = ("findings", "impression", "findings_sentences", "impression_sentences")
        wide = [("prompt_embedding", size), *((t, size) for t in texts)]
        wide += [("sections", len(found["section"])), ("phecode_logits", n_codes)]
        wide += [("phecode_labels", n_codes), ("finding_labels", len(found["finding"]))]
        problems += [
            f"{k}: {found[k].shape[1]} columns, expected {w}"
            for k, w in wide
            if found[k].ndim < 2 or found[k].shape[1] != w
        ]
        if not np.isfinite(found["image"]).all():
            problems.append("image: values that are not finite")
        if len(np.unique(found["study_id"])) != n:
            problems.append("study_id: the same study more than once")
    if problems:
        raise ValueError(
            f"{path.name}: not a whole embeddings file (docs/embeddings.md)\n  "
            + "\n  ".join(problems)
        )
    meta = json.loads(str(found.pop("meta")))
    return Embeddings(**{k: found[k] for k in _ARRAYS}, meta=meta)


def prompt_bank(path=PROMPTS):
    """The versioned prompts as a list of (finding, kind, wording, text), and the version."""
    bank = yaml.safe_load(Path(path).read_text())
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
    from merlin.cohort.extract import report_sentences

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
        From `ehr.read_code_map`.
    phecodes : sequence of str
    uncoded : {"absent", "unknown"}
    rollup : {"map", "paper"}
        As in `ehr.phecode_labels`.

    Returns
    -------
    dict
        `finding`, `finding_labels`, `phecode_labels` and `text_group` of an `Embeddings`.
    """
    from merlin.cohort.phecodes import phecode_labels

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
    blank = _blank(len(studies), image.shape[1])
    return Embeddings(
        **{c: studies[c].to_numpy(str) for c in ("study_id", "patient_id", "site", "split")},
        image=image,
        findings=encode_texts(model, texts, device=device, desc="findings")[0],
        **{n: blank[n] for n in ("impression", "sections", "section")},
        findings_sentences=encode_sentences(
            model, texts, device=device, desc="findings, by sentence"
        ),
        phecode_logits=logits,
        phecode=np.array(phecodes),
        **prompts,
        **labels,
        meta={"prompts": version, **(meta or {})},
    )
