"""The overview: one row a task from the results tables, ours and a named baseline."""

import pandas as pd

KEPT = ["value", "low", "high", "n_studies", "n_patients", "n_seeds"]
MAIN, CHANCE = dict(model="main"), dict(model="chance")


def collect(tables: dict[str, pd.DataFrame], *, pool: int) -> pd.DataFrame:
    """Pick the headline of each table.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Results by name: `zero_shot_findings, phenotypes, retrieval, external, five_year,
        report_generation, segmentation`.
    pool : int
        Size of the pools.

    Returns
    -------
    DataFrame
        `row, is_ours, baseline, value, low, high, n_studies, n_patients, n_seeds, stands`; two rows a task,
        which `stands` calls `above` or `below` each other where their intervals lie apart. The
        last is how many trainings the value is the mean of, blank in tables that do not say it.

    Raises
    ------
    KeyError
        If a headline is missing from its table, naming it.
    """
    rows = []
    for name, baseline, table, ours, other, where in _headlines(tables, pool):
        for is_ours, extra in ((True, ours), (False, other)):
            part = _matching(tables[table], where | extra)
            if len(part) != 1:
                asked = f"{len(part)} rows in {table} for {where | extra}, expected one"
                raise KeyError(f"{name}: {asked}")
            kept = part.iloc[0].reindex(KEPT).to_dict()
            rows.append(dict(row=name, is_ours=is_ours, baseline=baseline, **kept))
    macro = dict(label="macro", metric="auroc")
    inside = tables["zero_shot_findings"]
    home = _matching(inside, macro | MAIN | dict(wording="reported")).iloc[0]
    named = tables["external"]["site"].drop_duplicates()
    for site in named[~named.isin(["internal", "spine"])]:
        where = macro | dict(site=site, task="zero-shot findings")
        here = _matching(tables["external"], where).iloc[0]
        name = f"zero-shot findings, external {str(site).replace('_', ' ')}, macro AUROC"
        for is_ours, row in ((True, here), (False, home)):
            about = dict(row=name, is_ours=is_ours, baseline="the same, internal")
            rows.append(about | row.reindex(KEPT).to_dict())
    found = pd.DataFrame(rows)
    return found.assign(stands=found["row"].map(_standing(found)))


def _headlines(tables, pool):
    """Name, baseline, table, columns that tell ours and the baseline's, and those of both."""
    reported = dict(label="macro", wording="reported")
    yield (
        "zero-shot findings, macro F1", "every study called positive", "zero_shot_findings",
        MAIN, dict(model="always present"), reported | dict(metric="f1"),
    )  # fmt: skip
    yield (
        "zero-shot findings, macro AUROC", "random scores", "zero_shot_findings",
        MAIN, CHANCE, reported | dict(metric="auroc"),
    )  # fmt: skip
    yield (
        "phenotypes, macro AUROC", "random scores", "phenotypes",
        MAIN, CHANCE, dict(label="macro", metric="auroc"),
    )  # fmt: skip
    for label in ("image to findings", "findings to image"):
        metric = f"recall@1 of {pool}"
        where = dict(label=label, metric=metric)
        yield f"{label}, {metric}", "random vectors", "retrieval", MAIN, CHANCE, where
    for share in sorted(set(tables["five_year"]["fraction"]), reverse=True):
        yield (
            f"5-year diseases, mean AUROC, {share:.0%} of labels", "random initialisation",
            "five_year", dict(start="merlin"), dict(start="random"),
            dict(label="mean", metric="auroc", fraction=share),
        )  # fmt: skip
    yield (
        "report generation, clinical F1", "nearest report", "report_generation",
        dict(model="writer"), dict(model="nearest"), dict(label="full report", metric="clinical_f1"),
    )  # fmt: skip
    for share in sorted(set(tables["segmentation"]["fraction"]), reverse=True):
        yield (
            f"segmentation, mean Dice, {share:.0%} of labels", "same network, random weights",
            "segmentation", dict(model="merlin"), dict(model="scratch"),
            dict(label="mean", metric="dice", split="test", fraction=share),
        )  # fmt: skip


def _matching(table, where):
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def _standing(table: pd.DataFrame) -> pd.Series:
    """By row: `above` or `below` its baseline where the intervals lie apart, else `not told apart`."""
    ours, other = (table[table["is_ours"] == mine].set_index("row") for mine in (True, False))
    low, high = (other[end].fillna(other["value"]) for end in ("low", "high"))
    found = pd.Series("not told apart", index=ours.index)
    found[ours["low"] > high] = "above"
    found[ours["high"] < low] = "below"
    return found
