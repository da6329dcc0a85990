"""Penalised logistic regressions, the same for rivals of ours and for the plan of a report."""

import numpy as np

WIDE = 300  # inputs; where there are more, the mildest penalty is not tried, and Newton's steps would be slow
FREE = 10.0  # by which inputs that a penalty should hardly touch are scaled up


def logistic(
    train: np.ndarray, labels: np.ndarray, new: np.ndarray, *, c: float, n_free: int = 0
) -> np.ndarray:
    """One L2-penalised logistic regression a label.

    Parameters
    ----------
    train, new : (n, k), (m, k) float
        Standardised here by the training studies; NaN becomes their mean.
    labels : (n, n_labels) float
        1, 0, or NaN, which takes no part.
    c : float
        Inverse strength of the penalty, scikit-learn's `C`.
    n_free : int
        First columns that the penalty should hardly touch.

    Returns
    -------
    (m, n_labels) float
        Probabilities; NaN for a label whose training studies are all of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(train)
    train, new = (np.nan_to_num(scale.transform(x)) for x in (train, new))
    train[:, :n_free] *= FREE
    new[:, :n_free] *= FREE
    solver = "newton-cholesky" if train.shape[1] <= WIDE else "lbfgs"
    out = np.full((len(new), labels.shape[1]), np.nan)
    for j, y in enumerate(labels.T):
        is_known = ~np.isnan(y)
        if len(np.unique(y[is_known])) == 2:
            fitted = LogisticRegression(C=c, solver=solver, max_iter=1000)
            fitted.fit(train[is_known], y[is_known])
            out[:, j] = fitted.predict_proba(new)[:, 1]
    return out
