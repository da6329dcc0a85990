"""`merlin findings` and `merlin embed`: a user's scans, each read, encoded and let go.

Memory holds one scan at a time. What is encoded waits in a folder `.unfinished…` beside the results,
named by the content of scan and weights, until all scans are done: the same call after an
interruption goes on there. A scan that cannot be read or encoded is reported at the end and loses
no other.
"""

import hashlib
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import merlin
from merlin.commands.out import refuse_existing, save_picture
from merlin.commands.page import Shown, findings_page
from merlin.data.preprocess import PREPROCESS_VERSION, Grid, ModelInput, load_input
from merlin.data.scan import UnreadableScan, is_machines, refusing
from merlin.data.slices import qc_tables
from merlin.data.volume import content_digest, find_scans, locate
from merlin.embeddings import Embeddings, save_embeddings
from merlin.files import atomic, file_hash, read_csv, write_csv, write_text
from merlin.model.two_towers import TwoTowers
from merlin.run import places
from merlin.run.sources import fingerprint
from merlin.training.checkpoint import load_weights
from merlin.training.encode import encode_prompts
from merlin.words import lines, shown

PHANTOM_WARNING = (
    "These weights were trained on synthetic phantoms. Scores on a real scan test the software; they "
    "are not findings. Not for clinical use."
)
REAL_WARNING = "Research software: scores are not findings of a radiologist. Not for clinical use."
PAGE = "findings.html"
_OURS = re.compile(r"\.?[0-9a-f]{16}\.(npz|png).*")  # what an unfinished call keeps


@dataclass(frozen=True, eq=False)
class Encoded:
    """One scan as it is kept until the results are written.

    Attributes
    ----------
    image : (D,) float32
    logits : (n_phecodes,) float32
    input_id : str
        Hash of the model's input: paths may hold names.
    body_fraction : float
    notes : tuple of str
    picture : Path or None
        QC picture, where one is wanted.
    """

    image: np.ndarray
    logits: np.ndarray
    input_id: str
    body_fraction: float
    notes: tuple[str, ...]
    picture: Path | None


def start(
    command: str,
    paths: list[str],
    out: Path,
    weights: Path | None,
    *,
    assume_hu: bool,
    overwrite: bool,
) -> int:
    """Do `findings` or `embed` if nothing stands in the way; by default with the last run's weights."""
    if command == "findings":
        pictures = (p.name for p in out.glob("scan_*.png"))
        refuse_existing(out / "findings.csv", overwrite, (PAGE, *pictures))
    else:
        refuse_existing(out, overwrite)
        if out.suffix != ".npz":
            raise ValueError(f"--out {out}: expected a file name that ends in .npz")
    weights = weights or _last_weights()
    if not weights.is_file():
        raise FileNotFoundError(
            f"no weights at {weights}. Give a weights.safetensors, or run make figures."
        )
    return run(command, paths, out, weights, assume_hu=assume_hu, overwrite=overwrite)


def _last_weights() -> Path:
    for profile in ("full", "default", "smoke"):
        base = places.ROOT / "runs" / profile
        path = base / "pretraining" / "main" / "weights.safetensors"
        if path.exists():
            return path
    raise FileNotFoundError(
        "no trained weights in runs/. Run `make figures PROFILE=smoke` (minutes), or give --weights."
    )


def run(
    command: str, paths: list[str], out: Path, weights: Path, *, assume_hu: bool, overwrite: bool
) -> int:
    """Do `findings` or `embed`; returns the exit code."""
    model, facts = load_weights(weights)
    grid = Grid(**{k: tuple(facts["grid"][k]) for k in ("spacing_mm", "shape", "hu_window")})
    sys.stdout.write(
        f"Weights: {shown(weights)} ({shown(facts['tier'], 40)} tier, profile {shown(facts['profile'], 40)}).\n"
        f"Model input: {grid.shape} voxels of {grid.spacing_mm} mm (R, A, S), "
        f"HU {grid.hu_window[0]:g} to {grid.hu_window[1]:g}.\n"
    )
    if facts["tier"] == "phantom":
        sys.stdout.write(PHANTOM_WARNING + "\n")
    scans, notes = find_scans(paths)
    sys.stdout.write("".join(f"{shown(note)}\n" for note in notes))
    is_table = command == "findings"
    kept = out / ".unfinished" if is_table else out.with_name(f".unfinished-{out.name}")
    if kept.is_symlink() or (kept.exists() and not kept.is_dir()):
        raise FileExistsError(f"{shown(kept)} is a link or a file of somebody's. Move it away.")
    what = [file_hash(weights), assume_hu, merlin.__version__, PREPROCESS_VERSION]
    done: dict[Path, Encoded] = {}
    failed: list[str] = []
    for scan in tqdm(scans, desc="scans", disable=len(scans) < 4):
        try:
            one = _one(scan, len(done) + 1, kept, what, model, facts, grid, is_table)
        except (UnreadableScan, FileNotFoundError) as error:
            failed.append(str(error))
            continue
        done[scan] = one
        said = [
            f"scan {len(done)}: {shown(scan)}, {one.body_fraction:.0%} of the body inside the crop"
        ]
        tqdm.write("\n    ".join([*said, *map(shown, one.notes)]))
    target = out / "findings.csv" if is_table else out
    if target.exists() and not overwrite:
        raise FileExistsError(f"{shown(target)} was written by another call meanwhile.")
    if done and is_table:
        _write_findings(model, facts, done, out, overwrite)
    elif done:
        _write_embeddings(model, facts, done, out, weights)
    _remove_kept(kept)
    if failed:
        sys.stderr.write(f"{len(failed)} of {len(scans)} scans could not be read:\n")
        sys.stderr.write("".join(f"  {lines(error)}\n" for error in failed))
    return 2 if not done else 1 if failed else 0


def _remove_kept(folder: Path) -> None:
    """Remove what waited for the results; what is not named as ours stays, and its folder with it."""
    for path in folder.glob("*.*") if folder.exists() else ():
        if _OURS.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _one(
    scan: Path,
    number: int,
    kept: Path,
    what: list,
    model: TwoTowers,
    facts: dict,
    grid: Grid,
    is_drawn: bool,
) -> Encoded:
    """Read and encode one scan, or take what an interrupted call has kept of it."""
    with refusing(scan):
        source = locate(scan)
        digest = content_digest(source)
    key = fingerprint(digest, number, *what)  # the number stands in the picture
    picture = kept / f"{key}.png" if is_drawn else None
    file = kept / f"{key}.npz"
    if file.exists() and (picture is None or picture.exists()):
        # What a power cut left half written is made again.
        with suppress(ValueError, EOFError, OSError, KeyError, BadZipFile), \
                file.open("rb") as former, np.load(former, allow_pickle=False) as found:  # fmt: skip
            return Encoded(
                found["image"], found["logits"], str(found["input_id"]),
                float(found["body_fraction"]), tuple(map(str, found["notes"])), picture,
            )  # fmt: skip
    seen = load_input(source, grid, assume_hu=what[1])
    image, logits = _encode(scan, model, seen.image)
    input_id = hashlib.sha256(seen.image.tobytes()).hexdigest()[:16]
    kept.mkdir(parents=True, exist_ok=True)
    if picture:
        _draw_qc(picture, number, seen, facts)
    with atomic(file, "wb") as stream:
        np.savez(
            stream, image=image, logits=logits, input_id=np.array(input_id),
            body_fraction=seen.body_fraction, notes=np.array(seen.notes, str),
        )  # fmt: skip
    return Encoded(image, logits, input_id, seen.body_fraction, seen.notes, picture)


def _encode(scan: Path, model: TwoTowers, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and phecode logits of one model input; a failure is the scan's refusal."""
    expected, mend = "an image that the model takes", "Look at the scan; leave it out if it is odd"
    try:
        with torch.inference_mode():
            embedding, logits, _ = model.embed_volumes(torch.from_numpy(image)[None, None])
    except Exception as error:
        if is_machines(error):
            raise
        found = f"an error while it was encoded ({type(error).__name__})"
        raise UnreadableScan.about(scan, found=found, expected=expected, mend=mend) from error
    if not torch.isfinite(embedding).all():
        found = "an embedding that is not finite"
        raise UnreadableScan.about(scan, found=found, expected=expected, mend=mend)
    return embedding[0].numpy(), logits[0].numpy()


def _write_findings(
    model: TwoTowers, facts: dict, done: dict[Path, Encoded], out: Path, overwrite: bool
) -> None:
    from merlin.evaluation import zero_shot

    image = np.stack([one.image for one in done.values()])
    prompts, _ = encode_prompts(model)
    use = prompts["prompt_wording"] == "reported"
    scores = zero_shot.score(
        image, *(prompts[k][use] for k in ("prompt_embedding", "prompt_finding", "prompt_kind"))
    )
    names = [scan.absolute().name for scan in done]
    if len(set(names)) < len(names):  # as many folders as tell scans apart
        above = os.path.commonpath([scan.absolute().parent for scan in done])
        names = [str(scan.absolute().relative_to(above)) for scan in done]
    n_findings = len(scores.findings)
    table = pd.DataFrame(
        {
            "scan": np.repeat(np.arange(1, len(done) + 1), n_findings),
            "source": np.repeat([shown(name) for name in names], n_findings),
            "finding": np.tile(scores.findings, len(done)),
            "score": [round(float(value), 4) for value in scores.value.ravel()],
            "above_zero": (scores.value.ravel() > 0).astype(int),
        }
    )
    target = out / "findings.csv"
    if overwrite:
        _remove_former(target)
    write_csv(target, table.assign(weights_tier=facts["tier"]))
    _write_page(facts, table, list(done.values()), out / PAGE)
    for number, one in enumerate(done.values(), 1):
        if one.picture:
            one.picture.replace(_picture(out, number))
    sys.stdout.write(
        f"Wrote {shown(target)}, {len(done)} QC pictures (scan_001.png, …) and {PAGE}, which shows both: "
        "open it in a browser.\n"
    )


def _write_page(facts: dict, table: pd.DataFrame, done: list[Encoded], target: Path) -> None:
    of_scan = table.groupby("scan", sort=True)
    scans = [
        Shown(rows["source"].iloc[0], one.body_fraction, one.notes, one.picture, rows)
        for one, (_, rows) in zip(done, of_scan, strict=True)
    ]
    size, spacing = facts["grid"]["shape"], facts["grid"]["spacing_mm"]
    model = (
        f"Weights of tier {facts['tier']}, profile {facts['profile']}; the model sees {tuple(size)} voxels "
        f"of {tuple(spacing)} mm (R, A, S)."
    )
    warning = PHANTOM_WARNING if facts["tier"] == "phantom" else REAL_WARNING
    write_text(target, findings_page(scans, warning=warning, model=model))


def _picture(out: Path, number: int) -> Path:
    return out / f"scan_{number:03d}.png"


def _remove_former(target: Path) -> None:
    """Remove a former call's table and the pictures it lists, and nothing else."""
    if not target.exists():
        return
    try:
        numbers = read_csv(target)["scan"].unique()
        pictures = [_picture(target.parent, int(n)) for n in numbers]
    except (ValueError, KeyError):  # no table of ours
        pictures = []
    for path in (*pictures, target.with_name(PAGE), target):
        path.unlink(missing_ok=True)


def _draw_qc(path: Path, number: int, seen: ModelInput, facts: dict) -> None:
    from merlin.figures import panels

    sidecar = {
        "tier_note": "your scan as the model sees it; not for clinical use",
        "profile": facts["profile"],
        "seed": facts.get("seed"),
        "grid_spacing_mm": facts["grid"]["spacing_mm"],
    }
    save_picture(path, panels.draw_qc, qc_tables(seen, number), sidecar)


def _write_embeddings(
    model: TwoTowers, facts: dict, done: dict[Path, Encoded], out: Path, weights: Path
) -> None:
    prompts, version = encode_prompts(model)
    image = np.stack([one.image for one in done.values()])
    n, size = image.shape
    patient = [one.input_id for one in done.values()]
    ids: list[str] = []
    n_alike: dict[str, int] = {}
    for one in patient:  # equal scans: one patient, several studies
        n_alike[one] = n_alike.get(one, 0) + 1
        ids.append(one if n_alike[one] == 1 else f"{one}-{n_alike[one]}")
    whole = Embeddings(
        study_id=np.array(ids),
        patient_id=np.array(patient),
        site=np.full(n, "own"),
        split=np.full(n, "test"),
        image=image,
        phecode_logits=np.stack([one.logits for one in done.values()]),
        phecode=np.array(facts["phecodes"]),
        **prompts,
        meta={
            "model": facts["model"],
            "checkpoint": file_hash(weights),
            "prompts": version,
            "tier": facts["tier"],
        },
    )
    save_embeddings(out, whole)
    sys.stdout.write(
        f"Wrote {n} embeddings of {size} numbers to {shown(out)}; ids are hashes of the model's input:\n"
    )
    for scan, identity in zip(done, ids, strict=True):
        sys.stdout.write(f"  {identity}  {shown(scan)}\n")
    if n > len(n_alike):
        sys.stdout.write(
            f"{n - len(n_alike)} scans equal another one: they count as its patient's, with ids in -2, ….\n"
        )
