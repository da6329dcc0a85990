"""Detection against dose: a logistic curve, and the dose at which half are found, with resamples."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

PRIOR = 0.05  # weight of the normal prior, of variance 1 / PRIOR, on both coefficients


@dataclass(frozen=True)
class Curve:
    """A fitted curve: found = 1 / (1 + exp(−(a + b·z))), z = (dose − middle) / width.

    Attributes
    ----------
    a, b : (n_columns,) float
        On the data as they are, then on each resample.
    middle, width : float
    """

    a: np.ndarray
    b: np.ndarray
    middle: float
    width: float

    def half(self) -> np.ndarray:
        """(n_columns,) dose at which half are found; NaN where no more is found as the dose rises."""
        rises = self.b > 0
        at = -self.a / np.where(rises, self.b, 1.0)
        return np.where(rises, self.middle + self.width * at, np.nan)

    def at(self, doses: np.ndarray) -> np.ndarray:
        """(n_doses, n_columns) share found."""
        z = (np.asarray(doses, float)[:, None] - self.middle) / self.width
        return expit(self.a + self.b * z)


def fit(dose: np.ndarray, is_found: np.ndarray, weights: np.ndarray) -> Curve:
    """Logistic regression of detection on dose, once for each column of weights, by Newton's method.

    A weak normal prior on both coefficients keeps a curve finite where all above some dose are found
    and none below; where data say anything, it says next to nothing.

    Parameters
    ----------
    dose : (n,) float
    is_found : (n,) bool
    weights : (n, n_columns) float
        How often each trial counts, as `results.resampling` draws it by patient.

    Raises
    ------
    ValueError
        If fewer than two doses differ.
    """
    dose, y = np.asarray(dose, float), np.asarray(is_found, float)
    width = float(dose.std())
    if len(dose) < 2 or not width > 0:
        raise ValueError(
            f"a curve needs two doses or more that differ; got {len(dose)} trials of one"
        )
    middle = float(dose.mean())
    x = np.stack([np.ones_like(dose), (dose - middle) / width])  # (2, n)
    w = np.asarray(weights, float)
    beta = np.zeros((2, w.shape[1]))
    for _ in range(40):
        p = expit(x.T @ beta)
        slope = x @ (w * (y[:, None] - p)) - PRIOR * beta
        spread = w * p * (1 - p)
        h00, h01, h11 = spread.sum(0) + PRIOR, x[1] @ spread, x[1] ** 2 @ spread + PRIOR
        det = h00 * h11 - h01**2
        step = np.stack([h11 * slope[0] - h01 * slope[1], h00 * slope[1] - h01 * slope[0]]) / det
        beta = beta + np.clip(step, -2, 2)  # far from the peak a whole step may overshoot
        if np.abs(step).max() < 1e-8:
            break
    return Curve(beta[0], beta[1], middle, width)
