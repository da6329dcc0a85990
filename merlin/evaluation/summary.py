"""The overview: one row a task from the results tables, ours and a named baseline."""

import pandas as pd


def collect(tables, *, representation, pool):
    """Pick the headline of each table.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Results by name: `zero_shot_findings, phenotypes, retrieval, external, five_year,
        report_generation, segmentation`.
    representation : str
        Of reports in retrieval.
    pool : int
        Size of the pools.

    Returns
    -------
    DataFrame
        `row, is_ours, baseline, value, low, high, n_studies`; two rows a task.

    Raises
    ------
    KeyError
        If a headline is missing from its table, naming it.
    """
    rows = []

    def add(name, baseline, table, ours, other, **where):
        for is_ours, extra in ((True, ours), (False, other)):
            part = tables[table]
            for column, value in (where | extra).items():
                part = part[part[column] == value]
            if len(part) != 1:
                raise KeyError(
                    f"{name}: {len(part)} rows in {table} for {where | extra}, expected one"
                )
            kept = part.iloc[0][["value", "low", "high", "n_studies"]].to_dict()
            rows.append(dict(row=name, is_ours=is_ours, baseline=baseline, **kept))

    findings = dict(label="macro", wording="reported")
    main = dict(model="main")
    add(
        "zero-shot findings, macro F1",
        "every study called positive",
        "zero_shot_findings",
        main,
        dict(model="always present"),
        metric="f1",
        **findings,
    )
    add(
        "zero-shot findings, macro AUROC",
        "random scores",
        "zero_shot_findings",
        main,
        dict(model="chance"),
        metric="auroc",
        **findings,
    )
    chance = dict(model="chance")
    add(
        "phenotypes, macro AUROC", "random scores", "phenotypes", main, chance,
        label="macro", metric="auroc",
    )  # fmt: skip
    for label in ("image to findings", "findings to image"):
        add(
            f"{label}, recall@1 of {pool}", "random vectors", "retrieval", main, chance,
            label=label, metric=f"recall@1 of {pool}", representation=representation,
        )  # fmt: skip
    years = tables["five_year"]["fraction"]
    for fraction in sorted(set(years), reverse=True):
        add(
            f"5-year diseases, mean AUROC, {fraction:.0%} of labels", "random initialisation",
            "five_year", dict(start="merlin"), dict(start="random"),
            label="mean", metric="auroc", fraction=fraction,
        )  # fmt: skip
    add(
        "report generation, clinical F1", "nearest report", "report_generation",
        dict(model="writer"), dict(model="nearest"), label="full report", metric="clinical_f1",
    )  # fmt: skip
    for fraction in sorted(set(tables["segmentation"]["fraction"]), reverse=True):
        add(
            f"segmentation, mean Dice, {fraction:.0%} of labels", "same network, random weights",
            "segmentation", dict(model="merlin"), dict(model="scratch"),
            label="mean", metric="dice", split="test", fraction=fraction,
        )  # fmt: skip
    for site in ("site_b", "site_c"):
        outside = tables["external"]
        outside = outside[(outside["site"] == site) & (outside["task"] == "zero-shot findings")]
        here = outside[(outside["label"] == "macro") & (outside["metric"] == "auroc")].iloc[0]
        name = f"zero-shot findings, external {site.replace('_', ' ')}, macro AUROC"
        inside = tables["zero_shot_findings"]
        pick = (inside["label"] == "macro") & (inside["wording"] == "reported")
        home = inside[pick & (inside["metric"] == "auroc") & (inside["model"] == "main")].iloc[0]
        for is_ours, row in ((True, here), (False, home)):
            kept = row[["value", "low", "high", "n_studies"]].to_dict()
            rows.append(dict(row=name, is_ours=is_ours, baseline="the same, internal", **kept))
    return pd.DataFrame(rows)
