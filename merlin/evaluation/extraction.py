"""Labels from report text beside what was dictated, and test sentences that training reports hold."""

from collections import Counter

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


def by_reader(studies: pd.DataFrame) -> pd.DataFrame:
    """Agreement of `agreement` for each dictating reader, with what is misread most.

    Parameters
    ----------
    studies : DataFrame
        Of a manifest with a column `reader`; all splits and sites.

    Returns
    -------
    DataFrame
        A row a reader: `reader, dictates_training, n_studies, agreement, errors`.
    """
    stated = studies[[f"label_{n}" for n in NAMES]].to_numpy(float)
    mined = extract.label_table(studies["findings"], studies["sex"])
    wrong = ~((mined == stated) | (np.isnan(mined) & np.isnan(stated)))
    known = set(studies.loc[studies["split"] == "train", "reader"])
    rows = []
    for name in sorted(set(studies["reader"]), key=lambda n: (n not in known, n)):
        mine = wrong[(studies["reader"] == name).to_numpy()]
        counts = Counter({n: int(c) for n, c in zip(NAMES, mine.sum(0), strict=True) if c})
        errors = ", ".join(f"{n} {c}" for n, c in counts.most_common(3))
        rows.append((name, name in known, len(mine), 1 - mine.mean(), errors))
    columns = ["reader", "dictates_training", "n_studies", "agreement", "errors"]
    return pd.DataFrame(rows, columns=columns)


def seen_word_for_word(studies: pd.DataFrame) -> pd.DataFrame:
    """Share of test sentences that stand word for word in training reports.

    What a model recognises there it need not understand.

    Parameters
    ----------
    studies : DataFrame
        Of a manifest with `site`, `split`, `reader` and `findings`.

    Returns
    -------
    DataFrame
        A row for the internal test split, its readers who dictate training reports, the others,
        and each other site: `studies, n_sentences, seen, n_distinct, seen_distinct`; shares in
        [0, 1], once by occurrence and once over distinct sentences.
    """
    train = studies["split"] == "train"
    internal = (studies["split"] == "test") & studies["site"].isin(studies.loc[train, "site"])
    known = studies["reader"].isin(studies.loc[train, "reader"])
    held = {s for text in studies.loc[train, "findings"] for s in extract.report_sentences(text)}
    groups = {
        "test": internal,
        "test, readers of training reports": internal & known,
        "test, other readers": internal & ~known,
    }
    others = studies.loc[(studies["split"] == "test") & ~internal, "site"].unique()
    groups |= {str(site): studies["site"] == site for site in others}
    rows = []
    for name, mask in groups.items():
        said = [s for text in studies.loc[mask, "findings"] for s in extract.report_sentences(text)]
        distinct = set(said)
        share = float(np.mean([s in held for s in said])) if said else np.nan
        once = len(distinct & held) / len(distinct) if distinct else np.nan
        rows.append((name, len(said), share, len(distinct), once))
    columns = ["studies", "n_sentences", "seen", "n_distinct", "seen_distinct"]
    return pd.DataFrame(rows, columns=columns)
