"""What a quantity can be, and intervals that stay within it.

An interval of patients and seeds adds both parts on the quantity's own scale (`statistics.seeds`): with
three seeds far apart it may run beyond 1, where no AUROC is. Its ends are cut at the range. That costs no
coverage: the truth lies in the range, so what is cut off could not have held it.
"""

import re

import numpy as np
import pandas as pd

from merlin.statistics.bootstrap import SHARES

FREE = (-np.inf, np.inf)
_SHARE = re.compile(rf"(^|\s)({'|'.join(SHARES)})")
_COUNT = re.compile(r"^(n above|distance|studies for)")


def of(metric: str, *, is_difference: bool = False) -> tuple[float, float]:
    """The least and the most that a metric of the results tables can be.

    Parameters
    ----------
    metric : str
        As in a table, as `auroc`, `phenotype AUROC`, `recall@1 of 64`, `distance_mm`.
    is_difference : bool
        Of two such values; what begins with `difference of` is one anyway.

    Returns
    -------
    low, high : float
        0 and 1 of a share (−1 and 1 of BERTScore, a cosine), 0 and ∞ of a count or a distance, −∞ and ∞
        of all else, as calibration slopes.
    """
    name = metric.lower()
    is_difference = is_difference or name.startswith("difference of ")
    name = name.removeprefix("difference of ")
    if _SHARE.search(name):
        low, high = (-1.0 if "bertscore" in name else 0.0), 1.0
    elif _COUNT.match(name):
        low, high = 0.0, np.inf
    else:
        return FREE
    return (low - high, high - low) if is_difference else (low, high)


def within(
    table: pd.DataFrame, metric: str = "", *, differences: bool = False,
    ends: tuple[str, str] = ("low", "high"),
) -> pd.DataFrame:  # fmt: skip
    """A table whose intervals end where their quantities do.

    Parameters
    ----------
    table : DataFrame
        A column `metric`, and the columns of `ends`. Where it has a `kind`, rows of the kind `difference`
        are differences.
    metric : str
        Of all rows, in place of the column.
    differences : bool
        Whether the rows are differences of two values.
    ends : (str, str)
        Columns of the lower and the upper end; NaN stays.

    Returns
    -------
    DataFrame
        A copy; values are left alone.
    """
    if table.empty:
        return table
    names = [metric] * len(table) if metric else table["metric"].astype(str).tolist()
    kinds = table["kind"].eq("difference") if "kind" in table else np.zeros(len(table), bool)
    limits = [
        of(name, is_difference=differences or bool(k)) for name, k in zip(names, kinds, strict=True)
    ]
    least, most = np.array(limits).T
    found = {e: table[e].astype(float).clip(least, most) for e in ends}
    return table.assign(**found)
