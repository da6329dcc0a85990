"""The public TotalSegmentator dataset's folder layout → scans with label maps of our structures.

    Totalsegmentator_dataset/
      meta.csv                 image_id;age;gender;…;split;…
      s0011/ct.nii.gz
      s0011/segmentations/liver.nii.gz, spleen.nii.gz, …   one binary mask a structure

The paper keeps 401 of its scans; its filter and its list of 20 organs were not found, so the rule
here is ours: at least `min_structures` of our structures in the scan. `read_folder` lists the scans;
`write_label_maps` makes a cohort of them in the one schema, one label map a scan.
"""

import errno
import gzip
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm import tqdm

from merlin.cohort import anatomy
from merlin.cohort.manifest import SPLITS
from merlin.run import end_with_parent, fingerprint

# Structures of several masks; all others go by their own name.
MASKS = {
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "vertebrae": tuple(
        f"vertebrae_{level}"
        for level in (
            *(f"C{i}" for i in range(1, 8)),
            *(f"T{i}" for i in range(1, 13)),
            *(f"L{i}" for i in range(1, 6)),
            "S1",
        )
    ),
}


def masks_of(structure):
    """Names of the mask files that make up a structure."""
    return MASKS.get(structure, (structure,))


def read_folder(folder):
    """List the scans of the dataset.

    Parameters
    ----------
    folder : path
        That holds `meta.csv` and one folder a scan.

    Returns
    -------
    DataFrame
        `study_id, patient_id, split, volume, segmentations`, and `sex` and `age` where the list has
        them; splits are the dataset's own (`train`, `val`, `test`), one scan a patient.

    Raises
    ------
    FileNotFoundError
        If there is no `meta.csv`.
    ValueError
        Naming every scan of the list without a CT or without masks, and columns that are missing.
    """
    folder = Path(folder)
    source = folder / "meta.csv"
    if not source.is_file():
        raise FileNotFoundError(
            f"{source} is missing. Expected the unpacked TotalSegmentator dataset: meta.csv beside "
            "folders such as s0011/."
        )
    meta = pd.read_csv(source, sep=None, engine="python", dtype=str)
    missing = [c for c in ("image_id", "split") if c not in meta]
    if missing:
        raise ValueError(f"meta.csv: no column {', '.join(missing)}; found {', '.join(meta)}")
    problems, rows = [], []
    meta[["image_id", "split"]] = meta[["image_id", "split"]].fillna("")
    for row, (name, split) in enumerate(zip(meta["image_id"], meta["split"], strict=True), 2):
        if not name or split not in SPLITS:
            found = f"image_id {name!r}, split {split!r}"
            problems.append(f"row {row}: {found}. Expected an id and one of {', '.join(SPLITS)}")
            continue
        volume, masks = folder / name / "ct.nii.gz", folder / name / "segmentations"
        if not volume.is_file():
            problems.append(f"row {row}: {name}/ct.nii.gz is missing")
        elif not masks.is_dir():
            problems.append(f"row {row}: {name}/segmentations/ is missing")
        else:
            rows.append((name, name, split, volume, masks))
    if problems:
        raise ValueError(
            f"meta.csv: {len(problems)} of {len(meta)} scans are incomplete. Unpack the dataset again, "
            "or remove their rows.\n  " + "\n  ".join(problems)
        )
    table = pd.DataFrame(
        rows, columns=["study_id", "patient_id", "split", "volume", "segmentations"]
    )
    if "gender" in meta:
        first = meta["gender"].str.strip().str.upper().str[:1]
        table["sex"] = first.where(first.isin(["F", "M"]))
    if "age" in meta:
        table["age"] = pd.to_numeric(meta["age"], errors="coerce").map("{:g}".format, "ignore")
    return table


def read_labels(segmentations, shape):
    """One label map of our structures from a scan's masks.

    Parameters
    ----------
    segmentations : path
    shape : (3,) int
        Of the CT.

    Returns
    -------
    label : (i, j, k) uint8
        `anatomy.LABEL`.
    annotated : tuple of str
        Structures with at least one mask file; the others are unknown, not absent.

    Raises
    ------
    ValueError
        If a mask is not as large as the CT.
    """
    label, annotated = np.zeros(shape, np.uint8), []
    for structure, number in anatomy.LABEL.items():
        files = [Path(segmentations) / f"{m}.nii.gz" for m in masks_of(structure)]
        files = [f for f in files if f.is_file()]
        for file in files:
            mask = np.asanyarray(_load_whole(file).dataobj)
            if mask.shape != tuple(shape):
                raise ValueError(
                    f"{file}: {mask.shape} voxels, the CT has {tuple(shape)}. Fetch the scan again."
                )
            label[mask > 0] = number
        if files:
            annotated.append(structure)
    return label, tuple(annotated)


def _load_whole(path):
    """A NIfTI file whose bytes are known to be whole: nibabel stops before gzip's check sum."""
    raw = path.read_bytes()
    return nib.Nifti1Image.from_bytes(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)


def has_enough(label, min_structures):
    """Whether a scan holds enough of our structures to be judged."""
    return len(np.unique(label[label > 0])) >= min_structures


def write_label_maps(scans, out, *, min_structures, n_workers=1):
    """Join each scan's masks into one label map, and list the scans that can be used.

    Parameters
    ----------
    scans : DataFrame
        From `read_folder`.
    out : path
        Gets `label_maps/`; a map that is there already, of masks with the same sizes and dates, is read
        and not made again.
    min_structures : int
        Scans that hold fewer of our structures are left out.
    n_workers : int
        Processes.

    Returns
    -------
    manifest : DataFrame
        In the schema of `data_manifests/README.md`, paths relative to `out`.
    excluded : DataFrame
        `study_id, split, reason`: too few structures, no mask at all of one of ours (a label map cannot
        say *unknown*), a file that cannot be read.
    """
    out = Path(out)
    (out / "label_maps").mkdir(parents=True, exist_ok=True)
    jobs = [
        (row.volume, row.segmentations, out / "label_maps" / f"{row.study_id}.nii.gz")
        for row in scans.itertuples()
    ]
    one = partial(_write_label_map, min_structures=min_structures)
    progress = partial(tqdm, total=len(jobs), desc="label maps", mininterval=2)
    if n_workers > 1:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(n_workers, spawn, initializer=end_with_parent) as pool:
            reasons = list(progress(pool.map(one, jobs)))
    else:
        reasons = list(progress(map(one, jobs)))
    reason, base = np.array(reasons, object), out.resolve()
    table = scans.drop(columns="segmentations").assign(
        site="internal",
        volume=[os.path.relpath(Path(v).resolve(), base) for v in scans["volume"]],
        label_map=[f"label_maps/{name}.nii.gz" for name in scans["study_id"]],
    )
    excluded = scans.loc[reason != "", ["study_id", "split"]].assign(reason=reason[reason != ""])
    return table[reason == ""].reset_index(drop=True), excluded.reset_index(drop=True)


def _write_label_map(job, *, min_structures):
    """Write one scan's label map; why it cannot be used, or nothing."""
    volume, segmentations, target = job
    try:
        files = [volume, *sorted(segmentations.iterdir())]
        there = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        mark = fingerprint(there, anatomy.LABEL, MASKS)
        made = nib.load(target) if target.exists() else None
        if made is not None and made.header["descrip"].item().decode() == mark:
            label = np.asanyarray(made.dataobj)
        else:
            image = nib.load(volume)
            label, annotated = read_labels(segmentations, image.shape)
            unknown = [s for s in anatomy.STRUCTURES if s not in annotated]
            if unknown:
                return f"no mask of {', '.join(unknown)}"
            made = nib.Nifti1Image(label, image.affine)
            made.header.set_xyzt_units("mm")
            made.header["descrip"] = mark  # of the masks: a map of other ones is made again
            part = target.with_name(f".part-{target.name}")
            nib.save(made, part)
            part.replace(target)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever it likes
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise  # the machine's fault, not the scan's
        return f"not readable: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not has_enough(label, min_structures):
        n = len(np.unique(label[label > 0]))
        return f"{n} of our structures, fewer than {min_structures}"
    return ""
