"""Slices of a volume turned for display, and pictures as tables that a CSV can hold."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from merlin.data.preprocess import ModelInput


def three_planes(
    volume: np.ndarray, index: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axial, coronal and sagittal slices of an (R, A, S) array, turned for display.

    Axial from below with the patient's right at the left, front at the top; coronal from the front;
    sagittal with the front at the left.
    """
    i, j, k = index
    axial = volume[::-1, ::-1, k].T
    coronal = volume[::-1, j, ::-1].T
    sagittal = volume[i, ::-1, ::-1].T
    return axial, coronal, sagittal


def images_to_table(images: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """{panel: (rows, columns) array} → one table, a row of pixels a line."""
    parts = [pd.DataFrame(np.rint(a)).assign(panel=panel) for panel, a in images.items()]
    table = pd.concat(parts, ignore_index=True).set_index("panel")
    table = table[range(table.shape[1])].astype("Int32")  # narrow pictures end in gaps
    return table.rename(columns=lambda i: f"c{i}").reset_index()


def table_to_images(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Inverse of `images_to_table`."""
    images = {}
    for panel, part in table.groupby("panel", sort=False):
        array = part.drop(columns="panel").to_numpy(float)
        images[panel] = array[:, ~np.isnan(array).all(0)]
    return images


def qc_tables(seen: "ModelInput", title: str | int) -> dict[str, pd.DataFrame]:
    """Tables of the QC figure of one model input.

    Parameters
    ----------
    seen : ModelInput
    title : str or int
        How the picture calls the scan: a number, never a name.
    """
    hu = seen.image * 2000 - 1000
    planes = three_planes(hu, [s // 2 for s in hu.shape])
    about = [
        ("scan", title),
        ("model input", f"{hu.shape} voxels (R, A, S)"),
        ("HU range", f"{hu.min():.0f} to {hu.max():.0f}"),
        ("body inside the crop", f"{seen.body_fraction:.1%}"),
        ("cut off (mm)", ", ".join(f"{k} {v:.0f}" for k, v in seen.cut_mm.items())),
        *(("note", note) for note in seen.notes),
    ]
    slices = dict(zip(("axial", "coronal", "sagittal"), planes, strict=True))
    return {
        "slices": images_to_table(slices),
        "text": pd.DataFrame(about, columns=["what", "value"]),
    }
