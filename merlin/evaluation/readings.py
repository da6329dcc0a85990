"""What results say, in a sentence or two computed from them: the *Reading* at the end of a notebook.

Names out of a stranger's file come as letters, see `words.as_text`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from merlin.words import as_text

OTHER_WORDS = {"paraphrased": "radiologists' other words", "plain": "a layman's words"}


def excludes_zero(row: pd.Series) -> str:
    """Whether the interval of a difference does, as a verb."""
    return "excludes zero" if row["low"] > 0 or row["high"] < 0 else "includes zero"


def with_interval(row: pd.Series, form: str = ".3f") -> str:
    """`0.867 [0.858, 0.875]`."""
    value, low, high = (format(row[c], form) for c in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _named(label: object) -> str:
    return as_text(str(label).replace("_", " "))


def findings(
    results: pd.DataFrame, order: pd.DataFrame, paired: pd.DataFrame, brightness: pd.Series
) -> str:
    """Of `04_zero_shot_findings`.

    Parameters
    ----------
    results : DataFrame
        Of `by_arm.findings` and its baselines.
    order : DataFrame
        From `by_arm.order_of_findings`.
    paired : DataFrame
        From `by_arm.differences`.
    brightness : Series
        From `brightness.best_auroc`.
    """
    main = results.query("model == 'main'")
    macro = main.query("label == 'macro' and wording == 'reported'").set_index("metric")
    single = main.query("metric == 'auroc' and wording == 'reported' and label != 'macro'")
    ends = [
        f"{_named(r['label'])} ({with_interval(r, '.2f')})"
        for _, r in order.iloc[[0, -1] if len(order) else []].iterrows()
    ]
    said = (
        f"Macro AUROC {with_interval(macro.loc['auroc'])}, macro F1 of the positive class "
        f"{with_interval(macro.loc['f1'])} at natural prevalence and "
        f"{with_interval(macro.loc['f1_balanced'])} on class-balanced draws, over {len(order)} findings "
        f"({(single['status'] != 'ok').sum()} not evaluated). Hardest and easiest: {', '.join(ends)}. "
        f"{(order['low'] <= 0.5).sum()} of {len(order)} intervals do not lie above chance. "
    )
    other = main.query("label == 'macro' and metric == 'auroc'").set_index("wording")
    for wording, words in OTHER_WORDS.items():
        if wording in other.index:
            gaps = paired[
                paired["difference"].str.contains(wording) & (paired["metric"] == "auroc")
            ]
            is_worse = len(gaps) and (gaps["low"] > 0).all()
            verdict = "below its reports' words" if is_worse else "the difference includes zero"
            said += f"In {words}: AUROC {with_interval(other.loc[wording], '.2f')}; {verdict}. "
    gap = paired[paired["difference"].str.contains("tenth") & (paired["metric"] == "auroc")]
    for _, row in gap.iterrows():
        said += f"Main minus tenth arm: {row['value']:+.3f} [{row['low']:.3f}, {row['high']:.3f}] AUROC. "
    if brightness.notna().any():
        own = order.set_index("label")["value"].reindex(brightness.index)
        said += (
            f"Mean HU alone does as well as the model on {(brightness >= own).sum()} of the findings, and reaches "
            f"at most {brightness.max():.2f} ({_named(brightness.idxmax())})."
        )
    return said


def codes(results: pd.DataFrame, phecodes: Sequence[str], names: Mapping[str, str]) -> str:
    """Of `05_phenotypes`.

    Parameters
    ----------
    results : DataFrame
        Of `by_arm.codes`.
    phecodes : sequence of str
        All that the file has.
    names : mapping of str to str
        Phecode → its name, where there is one.
    """
    macro = results.query("label == 'macro' and model == 'main'").set_index("metric")
    each = results.query("model == 'main' and metric == 'auroc' and status == 'ok'")
    each = each[each["label"].isin(phecodes)].sort_values("value")
    if each.empty:
        return "no phecode has enough known labels: nothing was evaluated."
    low, high = each.iloc[0], each.iloc[-1]
    skipped = int(len(phecodes) - macro.loc["auroc", "n_positive"])
    hard, easy = (as_text(names.get(r["label"], r["label"])) for r in (low, high))
    return (
        f"Macro AUROC {with_interval(macro.loc['auroc'])} and AUPRC {macro.loc['auprc', 'value']:.3f} "
        f"over {len(each)} phecodes ({skipped} not evaluated); "
        f"{macro.loc['n above 0.85', 'value']:.0f} lie above 0.85 and "
        f"{macro.loc['n above 0.9', 'value']:.0f} above 0.9. Hardest: {hard} ({low['value']:.2f}); "
        f"easiest: {easy} ({high['value']:.2f})."
    )


def reports(results: pd.DataFrame, *, pool: int) -> str:
    """Of `06_retrieval`: recall@1 in pools of one size."""
    kept = results.query("model == 'main' and status == 'ok'")
    pick = kept[kept["metric"] == f"recall@1 of {pool}"].set_index("label")
    if "image to findings" not in pick.index:
        return f"Pools of {pool} were not evaluated; the table says why."
    there, back = pick.loc["image to findings"], pick.loc["findings to image"]
    way = "image to impression"
    impression = f"{pick.loc[way, 'value']:.1%}" if way in pick.index else "not evaluated"
    return (
        f"Among {pool} reports a volume's own is the nearest in {with_interval(there, '.1%')} of cases, "
        f"and a report finds its volume in {with_interval(back, '.1%')}; chance is {1 / pool:.1%}. "
        f"From the impression alone: {impression}. A single partition into pools of {pool} would have "
        f"given {there['pool_low']:.1%} to {there['pool_high']:.1%}. {there['duplicate_rate']:.1%} of "
        "the findings texts occur more than once."
    )


def elsewhere(drop: pd.DataFrame, spine: pd.DataFrame) -> str:
    """Of `07_external`: the drop of the findings by site, and the spine series."""
    overall = drop.query("label == 'macro' and metric == 'AUROC'").set_index("site")
    said = "; ".join(
        f"{site}: {r['value']:+.3f} [{r['low']:.3f}, {r['high']:.3f}]"
        for site, r in overall.iterrows()
    )
    f1, ranked = (spine.set_index("metric").loc[m] for m in ("f1", "auroc"))
    n, n_ill = f1["n_studies"], f1["n_positive"]
    said = f"AUROC over findings, external minus internal: {said}."
    if (spine["status"] != "ok").any():
        return f"{said} Spines were not evaluated: {f1['reason'] or ranked['reason']}."
    return (
        f"{said} On the spine series the fracture prompts "
        f"reach F1 {with_interval(f1, '.2f')} with {n_ill:.0f} fractured of {n:.0f} studies (calling all "
        f"of them fractured gives {2 * n_ill / (n + n_ill):.2f}); their AUROC there is "
        f"{with_interval(ranked, '.2f')} (chance 0.5)."
    )


def overview(table: pd.DataFrame) -> str:
    """Of `11_summary`: rows by how they stand to their baseline, each with its value beside the baseline's."""
    ours, other = (table[table["is_ours"] == mine].set_index("row") for mine in (True, False))
    heads = {
        "above": "Better than its baseline, intervals apart",
        "not told apart": "Too small, or too close, to tell from its baseline",
        "below": "Worse than its baseline, intervals apart",
    }
    said = []
    for how, head in heads.items():
        rows = ours.index[ours["stands"] == how]
        each = [
            f"- {row}: {with_interval(ours.loc[row])} against {other.loc[row, 'value']:.3f} "
            f"({other.loc[row, 'baseline']})"
            for row in rows
        ]
        if each:
            said.append(f"{head} ({len(rows)} of {len(ours)}):\n\n" + "\n".join(each))
    return "\n\n".join(said)


def design_claims(claims: pd.DataFrame) -> str:
    """Of `12_ablations`: how many hold, and each with its difference; `claims` from `ablations.verdicts`."""
    counts = ", ".join(f"{n} {v}" for v, n in claims["verdict"].value_counts().items())
    each = [
        f"- {c.claim} ({c.metric}, {c.arm} − reference): **{c.verdict}**, "
        f"{c.value:+.3f} [{c.low:+.3f}, {c.high:+.3f}], {c.n_seeds:.0f} seeds"
        + (f"; {c.reason}" if c.reason else "")
        for c in claims.itertuples()
        if c.verdict != "not run"
    ]
    return f"Of the design claims: {counts}.\n\n" + "\n".join(each)


def laws(results: pd.DataFrame) -> str:
    """Of `13_scaling_laws`, from `scaling.table`: exponents of the power law, the law that was chosen."""
    said = []
    for name, part in results.groupby("label", sort=False):
        told = part.set_index("metric")
        e = told.loc["exponent"]
        if e["status"] != "ok":
            said.append(f"{name}: no exponent ({e['reason']})")
            continue
        sign = "excludes zero" if e["low"] > 0 or e["high"] < 0 else "does not exclude zero"
        chosen = part.loc[part["is_chosen"] == True, "model"].iloc[0]  # noqa: E712 (empty where there is none)
        said.append(f"{name}: b = {with_interval(e)}, which {sign}; {chosen} law chosen")
    return "; ".join(said) + "."


def choices(table: pd.DataFrame) -> str:
    """Of `15_protocol_sensitivity`: how far all choices move each task, and which moves it most."""
    said = []
    usable = table[(table["status"] == "ok") & ~table["option"].str.contains("wrong")]
    for task, part in usable.groupby("task", sort=False):
        default = part["value"].iloc[0]
        moved = part.assign(gap=part["value"] - default)
        far = moved.sort_values("gap", key=np.abs, ascending=False).iloc[0]
        said.append(
            f"{task}: {default:.3f} by our protocol, {part['value'].min():.3f} to "
            f"{part['value'].max():.3f} over all choices; most by *{far['factor']}: {far['option']}* "
            f"({far['gap']:+.3f})"
        )
    return "; ".join(said) + "."


def ledger(table: pd.DataFrame) -> str:
    """Of `16_claims`: how many claims were asked of phantoms, and what came out."""
    asked = table[table["sign"].notna()]
    tested = asked[asked["status"] != "not run"]
    counts = ", ".join(f"{n} {s}" for s, n in tested["status"].value_counts().items())
    against = asked[asked["status"] == "contradicted here"]["claim"].tolist()
    why = asked[asked["status"] == "not askable here"]["reason"].value_counts()
    said = (
        f"{table['id'].nunique()} claims; {int(table.drop_duplicates('id')['value'].notna().sum())} carry "
        f"a sourced number; no number is tested on phantoms. Of {len(tested)} comparisons asked here, "
        f"{counts}. Contradicted: {'; '.join(dict.fromkeys(against)) or 'none'}."
    )
    return said + (
        f" Not askable: {'; '.join(f'{n} × {r}' for r, n in why.items())}." if len(why) else ""
    )


def cohort(
    studies: pd.DataFrame, prevalence: pd.DataFrame, extraction: pd.DataFrame, rate: float
) -> str:
    """Of `01_cohort`.

    Parameters
    ----------
    studies : DataFrame
        The manifest.
    prevalence : DataFrame
        `site, finding, prevalence`.
    extraction : DataFrame
        From `extraction.agreement`.
    rate : float
        Studies made a second.
    """
    rows = prevalence.query("site == 'internal'").sort_values("prevalence")
    rare, common = rows.iloc[0], rows.iloc[-1]
    twice = studies["findings"].duplicated(keep=False).mean()
    return (
        f"{len(studies):,} studies of {studies['patient_id'].nunique():,} patients were made at "
        f"{rate:.0f} studies a second (more if volumes were already there). The rarest finding is "
        f"{_named(rare['finding'])} ({rare['prevalence']:.0%}), the commonest "
        f"{_named(common['finding'])} ({common['prevalence']:.0%}). {twice:.1%} of reports are identical "
        f"to another. The label extractor agrees with what was dictated in "
        f"{with_interval(extraction.iloc[-1], '.2%')} of test labels, silence included; these are "
        "sentences from our own phrase book, which says nothing about other people's reports."
    )
