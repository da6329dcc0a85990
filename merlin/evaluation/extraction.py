"""Labels from report text beside what was dictated: how far the extractor agrees with the truth."""

import numpy as np
import pandas as pd

from merlin.data import extract
from merlin.statistics import bootstrap
from merlin.vocabulary import NAMES


def agreement(test: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Share of labels (1, 0 or silent) that the extractor reads as they were dictated.

    Parameters
    ----------
    test : DataFrame
        Studies of a manifest whose `label_<finding>` columns are what was dictated.
    n_resamples, seed : int

    Returns
    -------
    DataFrame
        The common result schema, a row a finding, the last over all.
    """
    test = test.reset_index(drop=True)
    stated = test[[f"label_{n}" for n in NAMES]].to_numpy(float)
    mined = extract.label_table(test["findings"], test["sex"])
    agree = (mined == stated) | (np.isnan(mined) & np.isnan(stated))
    weights = bootstrap.patient_weights(test["patient_id"], n_resamples, seed=seed)
    n, rows = dict(n_studies=len(test), n_patients=test["patient_id"].nunique()), []
    for name, right, said in zip(
        (*NAMES, "all findings"), (*agree.T, agree.mean(1)), (*stated.T, stated), strict=True
    ):
        drawn = right @ weights.astype(float) / weights.sum(0)
        e = bootstrap.interval(right.mean(), drawn)
        found = dict(label=name, value=e.value, low=e.low, high=e.high)
        rows.append(found | n | dict(n_positive=int((said == 1).sum())))
    return pd.DataFrame(rows).assign(
        task="label extraction", metric="agreement", model="rules", split="test", status="ok",
        reason="",
    )  # fmt: skip
