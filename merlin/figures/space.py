"""A look at a space of embeddings: tables of the figure `embeddings`."""

import numpy as np
import pandas as pd


def by_finding(
    image: np.ndarray,
    present: np.ndarray,
    absent: np.ndarray,
    label: np.ndarray,
) -> tuple[pd.DataFrame, list[float]]:
    """Studies in the two directions along which they differ most, and on a finding's own axis.

    Parameters
    ----------
    image : (n, D) float
    present, absent : (m, D) float
        Prompts of the finding.
    label : (n,) float
        1, 0, NaN where the report is silent: such studies are left out of the table.

    Returns
    -------
    points : DataFrame
        `x, y, score, finding`.
    explained : list of two float
        Share of the variance that each direction holds.
    """
    centred = image - image.mean(0)
    _, strength, directions = np.linalg.svd(centred, full_matrices=False)
    score = (image @ present.T).mean(1) - (image @ absent.T).mean(1)
    x, y = (centred @ directions[:2].T).T
    table = pd.DataFrame({"x": x, "y": y, "score": score, "finding": label})
    return table.dropna().round(5), [float(v) for v in (strength**2 / (strength**2).sum())[:2]]
