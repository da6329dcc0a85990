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
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel import orientations
from tqdm import tqdm

from merlin.data.cells import plain, read_ages, read_ids, read_sexes
from merlin.data.nifti import read_geometry, read_nifti
from merlin.data.tables import read_table
from merlin.files import atomic_path
from merlin.run import end_with_parent, fingerprint
from merlin.vocabulary import LABEL, SPLITS, STRUCTURES
from merlin.words import names_a_file, shown

GRID_TOL_VOXEL = 0.25  # how far a mask's voxel may lie from the CT's: affines are rounded
# Structures of several masks; all others go by their own name.
MASKS = {
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "vertebrae": tuple(f"vertebrae_{part}{i}" for part, n in (("C", 7), ("T", 12), ("L", 5), ("S", 1))
                       for i in range(1, n + 1)),
}  # fmt: skip


def masks_of(structure: str) -> tuple[str, ...]:
    """Names of the mask files that make up a structure."""
    return MASKS.get(structure, (structure,))


def read_folder(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the scans of the dataset.

    Parameters
    ----------
    folder : path
        That holds `meta.csv` and one folder a scan.

    Returns
    -------
    scans : DataFrame
        `study_id, patient_id, split, volume, segmentations`, and `sex` and `age` where the list has
        them; splits are the dataset's own (`train`, `val`, `test`), one scan a patient.
    excluded : DataFrame
        `study_id, split, reason`: rows without a usable id or split, ids that stand twice, scans
        without a CT or without masks.

    Raises
    ------
    FileNotFoundError
        If there is no `meta.csv`.
    TableError
        Naming columns that are missing, and rows whose age or sex cannot be read.
    """
    folder = Path(folder)
    source = folder / "meta.csv"
    if not source.is_file():
        raise FileNotFoundError(
            f"{source} is missing. Expected the unpacked TotalSegmentator dataset: meta.csv beside "
            "folders such as s0011/."
        )
    meta = read_table(source, needed=("image_id", "split"))
    names = read_ids(meta["image_id"], where="meta.csv, column image_id")
    table = pd.DataFrame({"study_id": names, "patient_id": names})
    table["split"] = meta["split"].str.strip().str.lower()
    table["volume"] = [folder / n / "ct.nii.gz" for n in names]
    table["segmentations"] = [folder / n / "segmentations" for n in names]
    for ours, theirs, read in (
        ("sex", ("gender", "sex"), read_sexes),
        ("age", ("age",), read_ages),
    ):
        column = next((c for c in meta if plain(c) in theirs), None)
        if column is not None:
            table[ours] = read(meta[column], where=f"meta.csv, column {column}")
    if "age" in table:
        table["age"] = table["age"].map("{:g}".format, "ignore")
    twice = names.duplicated(keep=False)
    reasons = pd.Series([_row_problem(r) for r in table.itertuples()], table.index, dtype=object)
    reasons = reasons.mask(twice & (reasons == ""), "its id stands more than once")
    is_bad = reasons != ""
    excluded = table.loc[is_bad, ["study_id", "split"]].assign(
        reason=[f"meta.csv, row {i + 2}: {why}" for i, why in reasons[is_bad].items()]
    )
    return table[~is_bad].reset_index(drop=True), excluded.reset_index(drop=True)


def _row_problem(row):
    """Why a row of the list cannot be used; empty if it can."""
    if not names_a_file(row.study_id):
        return "no image_id that names a folder"
    if row.split not in SPLITS:
        return f"split {row.split!r}. Expected one of {', '.join(SPLITS)}"
    if not row.volume.is_file():
        return f"{row.study_id}/ct.nii.gz is missing"
    if not row.segmentations.is_dir():
        return f"{row.study_id}/segmentations/ is missing"
    return ""


def read_labels(
    segmentations: str | Path, volume: str | Path
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """One label map of our structures from a scan's masks.

    Parameters
    ----------
    segmentations : path
    volume : path
        The CT, whose grid the label map gets; its header alone is read.

    Returns
    -------
    label : (i, j, k) uint8
        `vocabulary.LABEL`.
    affine : (4, 4) float
        Of the CT, in mm.
    annotated : tuple of str
        Structures with at least one mask file; the others are unknown, not absent.

    Raises
    ------
    ValueError
        If a mask holds no whole numbers, does not lie on the CT's grid, or a file is damaged or claims
        more than its size allows.
    """
    affine, shape = read_geometry(Path(volume))
    label, annotated = np.zeros(shape, np.uint8), []
    for structure, number in LABEL.items():
        files = [Path(segmentations) / f"{m}.nii.gz" for m in masks_of(structure)]
        files = [f for f in files if f.is_file()]
        for file in files:
            label[_mask(file, affine, shape) > 0] = number
        if files:
            annotated.append(structure)
    return label, affine, tuple(annotated)


def _mask(file, affine, shape):
    """A mask's values along the axes of its CT: its own may be swapped or flipped, by its affine."""
    image = read_nifti(file, is_label=True)
    values = image.hu
    if values.dtype.kind == "f":  # whole numbers come as such
        raise ValueError(f"{file.name}: values are not whole numbers; is this a mask?")
    turn = orientations.io_orientation(np.linalg.solve(affine, image.affine))  # in the CT's axes
    turned = orientations.apply_orientation(values, turn)
    turned_affine = image.affine @ orientations.inv_ornt_aff(turn, values.shape)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    away = np.abs((np.linalg.solve(turned_affine, affine) - np.eye(4)) @ corners)  # voxels
    if turned.shape != tuple(shape) or away.max() > GRID_TOL_VOXEL:
        raise ValueError(
            f"{file.name}: {'×'.join(map(str, values.shape))} voxels that do not lie on the CT's grid; "
            f"the CT has {'×'.join(map(str, shape))}. Fetch the scan again."
        )
    return turned


def has_enough(label: np.ndarray, min_structures: int) -> bool:
    """Whether a scan holds enough of our structures to be judged."""
    return len(np.unique(label[label > 0])) >= min_structures


def write_label_maps(
    scans: pd.DataFrame, out: str | Path, *, min_structures: int, n_workers: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
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
        say *unknown*), a mask on another grid than its CT, a file that cannot be read.
    """
    out = Path(out)
    for place in {str(out.resolve()), *(str(Path(v).resolve()) for v in scans["volume"])}:
        if place != place.encode("utf-8", "replace").decode():
            raise ValueError(f"{shown(place)}: a manifest can't hold this name. Rename the folder.")
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
        mark = fingerprint(there, LABEL, MASKS, "by affine")
        made = nib.load(target) if target.exists() else None
        if isinstance(made, nib.Nifti1Image) and made.header["descrip"].item().decode() == mark:
            label = np.asanyarray(made.dataobj)
        else:
            label, affine, annotated = read_labels(segmentations, volume)
            unknown = [s for s in STRUCTURES if s not in annotated]
            if unknown:
                return f"no mask of {', '.join(unknown)}"
            made = nib.Nifti1Image(label, affine)
            made.header.set_xyzt_units("mm")
            made.header["descrip"] = mark  # of the masks: a map of other ones is made again
            with atomic_path(target) as part:
                nib.save(made, part)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever it likes
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise  # the machine's fault, not the scan's
        said = " ".join(str(error).replace(f"{volume.parent}/", "").split())
        return f"not readable: {type(error).__name__}: {shown(said, 300)}"
    if not has_enough(label, min_structures):
        n = len(np.unique(label[label > 0]))
        return f"{n} of our structures, fewer than {min_structures}"
    return ""
