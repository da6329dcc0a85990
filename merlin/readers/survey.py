"""Preprocess many studies in worker processes, and keep a row on each: what it is, or why it is out.

Every study is read once and its model input cached (`preprocess.load_input`), so that training and
encoding find it there. A study that cannot be read is *quarantined*: it stays in the table with its
reason, and every later denominator can count it. A killed survey resumes with what the cache lacks;
memory does not grow with the number of studies.
"""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from tqdm import tqdm

from merlin.data.nifti import read_geometry
from merlin.data.preprocess import Grid, load_input
from merlin.data.scan import UnreadableScan, refusing
from merlin.data.tree import walk
from merlin.run import end_with_parent
from merlin.words import shown

COLUMNS = (
    "study_id", "status", "reason", "orientation", "spacing_r_mm", "spacing_a_mm", "spacing_s_mm",
    "n_slices", "body_fraction", "body_hu", "air_fraction", "notes",
)  # fmt: skip
OUTLIER_MAD = 6.0  # robust deviations from the median at which a study's body HU is an outlier


def look_at(study: tuple[str, str], *, grid: Grid, cache_dir: str | Path) -> dict:
    """One row of `survey`: (study id, path) → dict.

    `body_hu` is the median HU of the model's input above −200 HU, `air_fraction` the share of the
    input at the window's lower end; orientation and spacing are the file's own.
    """
    study_id, path = study
    row = dict.fromkeys(COLUMNS, np.nan) | dict(study_id=study_id, status="ok", reason="", notes="")
    try:
        seen = load_input(path, grid, cache_dir=cache_dir)
        header = _header(path)
    except (UnreadableScan, FileNotFoundError) as error:  # all else is the machine's fault
        return row | dict(status="quarantined", reason=_without_names(str(error), path, study_id))
    low, high = grid.hu_window
    hu = seen.image * (high - low) + low
    body = hu[hu > -200]
    row |= dict(
        body_fraction=round(seen.body_fraction, 4),
        body_hu=round(float(np.median(body)), 1) if len(body) else np.nan,
        air_fraction=round(float((seen.image <= 0).mean()), 4),
        notes=" ".join(seen.notes),
    )
    return row | header


def _without_names(text, path, study_id):
    """An error's words without the study's path and the files' names in it: they may name a person."""
    path = Path(path)
    inside = walk(path).files
    names = {str(p.relative_to(path)) for p in inside} | {p.name for p in inside}
    for own in (str(path), path.name):
        text = text.replace(shown(own), study_id).replace(own, study_id)
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(shown(name), "a file").replace(name, "a file")
    return " ".join(text.split())[:300]


def _header(path):
    """Orientation, spacing along R, A, S and slices of a NIfTI file; nothing for a DICOM folder."""
    if not str(path).endswith((".nii", ".nii.gz")):
        return {}
    try:
        with refusing(path):
            affine, shape = read_geometry(Path(path))
    except UnreadableScan:  # misnamed, though readable
        return {}
    axes = np.argsort(nib.orientations.io_orientation(affine)[:, 0])  # of the file, along R, A, S
    r, a, s = (round(float(mm), 3) for mm in nib.affines.voxel_sizes(affine)[axes])
    codes = "".join(nib.aff2axcodes(affine))
    return dict(orientation=codes, spacing_r_mm=r, spacing_a_mm=a, spacing_s_mm=s,
                n_slices=shape[int(axes[2])])  # fmt: skip


def survey(
    studies: pd.DataFrame,
    grid: Grid = Grid(),  # noqa: B008 - frozen
    *,
    cache_dir: str | Path,
    n_workers: int = 0,
) -> pd.DataFrame:
    """Look at every study, in parallel, filling the cache.

    Parameters
    ----------
    studies : DataFrame
        `study_id, volume`.
    grid : Grid
    cache_dir : path
    n_workers : int
        Processes; 0 works in this one.

    Returns
    -------
    DataFrame
        `COLUMNS`, one row a study in the given order; `status` is `ok` or `quarantined`.

    Raises
    ------
    OSError, MemoryError
        Where the disk, this process or one worker after another has no room: no study is blamed for
        that, and the next call resumes.
    """
    jobs = list(zip(studies["study_id"], studies["volume"], strict=True))
    look = partial(look_at, grid=grid, cache_dir=cache_dir)
    bar = partial(tqdm, total=len(jobs), desc="studies", mininterval=5)
    found = map(look, jobs) if not n_workers else _in_processes(look, jobs, n_workers)
    return pd.DataFrame(list(bar(found)), columns=list(COLUMNS))


def _in_processes(look, jobs, n_workers):
    """Rows in the order of `jobs`.

    After a worker was killed, or had no memory, the next studies go one at a time in a process of
    their own; one that fails there again is quarantined.
    """
    # Rows yielded; studies yet to go alone; failures without a row between.
    n = alone = in_a_row = 0
    while n < len(jobs):
        part = jobs[n : n + alone] if alone else jobs[n:]
        n_processes = 1 if alone else n_workers
        with ProcessPoolExecutor(n_processes, get_context("spawn"), end_with_parent) as pool:
            try:
                for row in pool.map(look, part, chunksize=1 if alone else 4):
                    n, in_a_row = n + 1, 0
                    yield row
                alone = 0
            except (BrokenProcessPool, MemoryError):
                in_a_row += 1
                if in_a_row > 3:
                    raise MemoryError(
                        "Processes that read studies are killed again and again, most likely for "
                        "memory. Run again with fewer (n_workers, or make's CORES); finished studies "
                        "are kept."
                    ) from None
                if alone:
                    why = "the process that read it was killed, or had no memory"
                    yield dict(study_id=jobs[n][0], status="quarantined", reason=why, notes="")
                    n += 1
                else:
                    tqdm.write("a process was killed, or had no memory: some studies go one by one")
                alone = 4 * n_workers


def outliers(table: pd.DataFrame) -> pd.DataFrame:
    """What is odd about studies that could be read, for the audit.

    Returns
    -------
    DataFrame
        `study_id, what, detail`: another orientation than most, spacing beyond 0.3 to 10 mm, body
        HU far from the others', more than a tenth of the body outside the crop.
    """
    ok = table[table["status"] == "ok"]
    usual, middle = next(iter(ok["orientation"].mode()), ""), ok["body_hu"].median()
    deviation = max(1.4826 * (ok["body_hu"] - middle).abs().median(), 5.0)
    rules = [
        ("orientation", "orientation", ok["orientation"].notna() & (ok["orientation"] != usual),
         f"{{}}, most are {usual}"),
        *(("spacing", name, (ok[name] < 0.3) | (ok[name] > 10), f"{{:g}} mm along {axis.upper()}")
          for axis in "ras" for name in (f"spacing_{axis}_mm",)),
        ("HU", "body_hu", (ok["body_hu"] - middle).abs() > OUTLIER_MAD * deviation,
         f"body median {{:g}}, usual {middle:.0f}"),
        ("crop", "body_fraction", ok["body_fraction"] < 0.9, "{:.0%} of the body inside"),
    ]  # fmt: skip
    found = [
        (study_id, what, said.format(value))
        for what, column, is_odd, said in rules
        for study_id, value in zip(ok["study_id"][is_odd], ok[column][is_odd], strict=True)
    ]
    return pd.DataFrame(found, columns=["study_id", "what", "detail"])
