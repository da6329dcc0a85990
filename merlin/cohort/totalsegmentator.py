"""The public TotalSegmentator dataset's folder layout → scans with label maps of our structures.

    Totalsegmentator_dataset/
      meta.csv                 image_id;age;gender;…;split;…
      s0011/ct.nii.gz
      s0011/segmentations/liver.nii.gz, spleen.nii.gz, …   one binary mask a structure

The paper keeps 401 of its scans; its filter and its list of 20 organs were not found, so the rule
here is ours: at least `min_structures` of our structures in the scan.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from merlin.cohort import anatomy

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
        `study_id, patient_id, split, volume, segmentations`; splits are the dataset's own (`train`,
        `val`, `test`), one scan a patient.

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
    for row, (name, split) in enumerate(zip(meta["image_id"], meta["split"], strict=True), 2):
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
    return pd.DataFrame(
        rows, columns=["study_id", "patient_id", "split", "volume", "segmentations"]
    )


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
            mask = np.asanyarray(nib.load(file).dataobj)
            if mask.shape != tuple(shape):
                raise ValueError(
                    f"{file}: {mask.shape} voxels, the CT has {tuple(shape)}. Fetch the scan again."
                )
            label[mask > 0] = number
        if files:
            annotated.append(structure)
    return label, tuple(annotated)


def has_enough(label, min_structures):
    """Whether a scan holds enough of our structures to be judged."""
    return len(np.unique(label[label > 0])) >= min_structures
