"""Is it right, not only installed? Known inputs through every stage, against committed values.

`merlin check` makes one phantom scan, brings it to a model's grid, encodes it and its report with a
small network of seeded random weights, scores prompts, reads the report's findings and writes a
report; each result is held to `reference.json`. Random weights are enough: what is checked is that this
machine computes what ours did, not that a model is good. With `--ct` known real scans are checked too.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from merlin.data import extract
from merlin.data.preprocess import Grid, preprocess
from merlin.data.scan import Volume
from merlin.data.volume import load_volume
from merlin.evaluation import zero_shot
from merlin.files import write_json
from merlin.model import report_writer
from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.model.volumes import THREE_WINDOWS
from merlin.phantom import reports, synthesis
from merlin.phantom.readers import reader
from merlin.training.encode import encode_texts, prompt_bank

KNOWN_CT = "the upper abdomen of TotalSegmentator's test data (122 x 101 x 30 voxels, Apache-2.0)"
UNKNOWN = f"no reference for this scan, nothing to compare with; the known one is {KNOWN_CT}"
REFERENCE = Path(__file__).parent / "reference.json"
SEED, PATIENT = 7, "P00000"
SPACING_MM, SHAPE = (5.0, 5.0, 8.0), (72, 56, 56)
# Another processor or numpy may round otherwise: the values with tolerances decide then.
OTHER_BITS = "ok, within tolerances: other bits than on our machine"
TOLERANCE = {"hu": 1.0, "input": 1e-4, "embedding": 1e-4, "score": 1e-4}


def measure(ct: Iterable[str | Path] = ()) -> dict[str, dict[str, Any]]:
    """What every stage gives on this machine.

    Parameters
    ----------
    ct : sequence of path
        Real scans to add, known by their voxels.

    Returns
    -------
    dict of str to dict
        Scan → {`kind: what` → number, list of numbers, or text}.
    """
    site = synthesis.SITES["internal"]
    patient = synthesis.draw_patient(SEED, PATIENT, site)
    study = synthesis.draw_study(SEED, f"{PATIENT}-1", patient, site)
    hu, label, grid = synthesis.acquire(SEED, study, matrix=76)
    report = reports.write_report(
        study.found, sex=patient.sex, reader=reader(site.readers[0]),
        rng=synthesis.stream(SEED, study.study_id, "report"), remarks=study.remarks,
    )  # fmt: skip
    stated = {k: v for k, v in extract.label_report(report.findings, sex=patient.sex).items()
              if v is not None and np.isfinite(v)}  # fmt: skip
    found = {"phantom": {
        "bits: volume": _sha(hu.tobytes()),
        "hu: organs": [float(np.median(hu[label == k])) for k in np.unique(label) if k],
        "text: sha256 of the report": _sha(report.findings.encode()),
        "text: findings in the report": ", ".join(f"{k}={int(v)}" for k, v in sorted(stated.items())),
        **_through(Volume(hu, grid.affine), report.findings),
    }}  # fmt: skip
    for path in ct:
        volume = load_volume(path)
        name = f"CT {_sha(np.ascontiguousarray(volume.hu).tobytes())[:16]}"
        found[name] = {
            "hu: percentiles": np.percentile(volume.hu, [1, 25, 50, 75, 99]).tolist(),
            **_through(volume, report.findings),
        }
    return found


def _through(volume: Volume, text: str) -> dict[str, Any]:
    """Model input, embeddings and zero-shot scores of one volume."""
    grid = Grid(SPACING_MM, SHAPE)
    seen = preprocess(volume, grid)
    torch.manual_seed(SEED)
    image = ImageConfig(depth=14, width=8, stem="patch", n_stages=3, pool="grid", grid_cells=4,
                        n_phecodes=5, windows=THREE_WINDOWS)  # fmt: skip
    towers = TowersConfig(image, TextConfig(kind="small", hidden_size=64), grid.shape)
    model = TwoTowers(towers).eval()
    with torch.inference_mode():
        vector, logits, embedding = model.embed_volumes(torch.from_numpy(seen.image)[None, None])
    rows, _ = prompt_bank()
    rows = [r for r in rows if r[2] == "reported"]
    prompts, _ = encode_texts(model, [r[3] for r in rows], show=False)
    finding, kind = (np.array([r[i] for r in rows]) for i in (0, 1))
    scores = zero_shot.score(vector.numpy(), prompts, finding, kind).value[0]
    written, _ = encode_texts(model, [text], show=False)
    return {
        "input: mean and nine voxels": [float(seen.image.mean()), *_nine(seen.image)],
        "embedding: image": vector[0, :8].tolist(),
        "embedding: phecode logits": logits[0].tolist(),
        "embedding: report": written[0, :8].tolist(),
        "score: findings": scores.tolist(),
        **_report(embedding, text),
    }


def _report(embedding: torch.Tensor, text: str) -> dict[str, Any]:
    """What a small writer of random weights makes of one embedding: babble, but always the same."""
    tokenizer = report_writer.train_tokenizer([text], vocabulary=300)
    torch.manual_seed(SEED)
    language_model = report_writer.small_language_model(
        tokenizer, hidden_size=64, n_layers=1, max_length=256
    )
    writer = report_writer.ReportWriter(language_model, tokenizer, embedding.shape[1]).eval()
    prompt = [report_writer.PROMPT.format(section="liver")]
    with torch.inference_mode():
        loss = writer.loss(embedding, prompt, [text[:200]])
    babble = writer.write(embedding, prompt, max_new_tokens=24, repetition_penalty=1.0)[0]
    return {"score: loss of a report": [float(loss)], "bits: written report": _sha(babble.encode())}


def _nine(image: np.ndarray) -> list[float]:
    at = [tuple(int(n * f) for n in image.shape) for f in np.linspace(0.3, 0.7, 9)]
    return [float(image[i]) for i in at]


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def compare(
    found: dict[str, dict[str, Any]], reference: dict[str, dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """Hold `measure` to the committed values.

    Returns
    -------
    list of (str, str, str)
        Scan, what, and `ok` or what differs; a scan without a reference says so.
    """
    rows = []
    for scan, values in found.items():
        if scan not in reference:
            rows.append((scan, "all", UNKNOWN))
            continue
        for what, value in values.items():
            kind, name = what.split(": ", 1)
            rows.append((scan, name, _held(kind, value, reference[scan][what])))
    return rows


def _held(kind: str, value: Any, known: Any) -> str:
    """`ok`, or how one value differs from the known one."""
    if kind == "bits":
        return "ok" if value == known else OTHER_BITS
    if kind == "text":
        return "ok" if value == known else f"{value[:60]}, expected {known[:60]}"
    if np.shape(value) != np.shape(known):
        return f"{len(value)} values, expected {len(known)}"
    gap, limit = np.abs(np.subtract(value, known)).max(), TOLERANCE[kind]
    return "ok" if gap <= limit else f"off by {gap:.2g}, tolerance {limit:g}"


def main(ct: Iterable[str | Path] = (), write: bool = False) -> int:
    """Measure, compare and print; returns an exit code."""
    found = measure(ct)
    if write:
        before = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
        write_json(REFERENCE, before | found)
    rows = compare(found, json.loads(REFERENCE.read_text()))
    for scan, name, said in rows:
        state = "ok" if said.startswith("ok") else "unknown" if said == UNKNOWN else "DIFFERS"
        sys.stdout.write(f"{state:8} {scan}: {name}\n")
        if said != "ok":
            sys.stdout.write(f"         {said}\n")
    known = [said for *_, said in rows if said != UNKNOWN]
    n_right = sum(said.startswith("ok") for said in known)
    sys.stdout.write(
        f"{n_right} of {len(known)} as expected.\n"
        + ("" if ct else f"Real CT was not checked: --ct takes {KNOWN_CT}.\n")
    )
    return 0 if n_right == len(rows) else 1  # what can't be compared was not found right
