"""The values of a run's tables, computed again from its embeddings and predictions by other means.

scikit-learn and plain loops instead of the package's statistics: what a trained model gives differs
between processors, but a table must say what its own run's files say, to the last digit. Scores at
chance, another arm's values, a row in the wrong place: whatever separates the two is found here. Where a
profile trains its main arm with several seeds, a row is the mean over them, and so it is here.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from merlin import run

SITES = ("internal", "site_b", "site_c")


def opened(base, arm):
    """Arrays of an embeddings file."""
    with np.load(Path(base) / "embeddings" / f"{arm}.npz", allow_pickle=False) as file:
        return {k: file[k] for k in file.files}


def both_classes(y):
    """Known labels, and whether they hold both classes."""
    known = np.isfinite(y)
    return known, len(set(y[known])) == 2


def _with_mean(rows, label="macro"):
    """Rows of (label, metric, value) and their means by metric."""
    table = pd.DataFrame(rows, columns=["label", "metric", "value"])
    means = table.groupby("metric", as_index=False)["value"].mean().assign(label=label)
    return pd.concat([table, means], ignore_index=True)


def findings(e, rows, wording="reported"):
    """AUROC and F1 at zero by finding: similarity to what states it less that to what denies it."""
    use, out = e["prompt_wording"] == wording, []
    for j, name in enumerate(e["finding"]):
        side = [
            e["image"][rows] @ e["prompt_embedding"][use & (e["prompt_finding"] == name)
                                                     & (e["prompt_kind"] == kind)].T
            for kind in ("present", "absent")
        ]  # fmt: skip
        score, y = side[0].mean(1) - side[1].mean(1), e["finding_labels"][rows, j]
        known, is_ok = both_classes(y)
        if is_ok:
            out.append((name, "auroc", roc_auc_score(y[known], score[known])))
            out.append((name, "f1", f1_score(y[known] == 1, score[known] > 0, zero_division=0)))
    return _with_mean(out)


def phecodes(e, rows, min_positive):
    """AUROC and average precision by phecode."""
    out = []
    for j, name in enumerate(e["phecode"]):
        score, y = e["phecode_logits"][rows, j], e["phecode_labels"][rows, j]
        known, is_ok = both_classes(y)
        if is_ok and min_positive <= (y == 1).sum() <= known.sum() - 1:
            out.append((name, "auroc", roc_auc_score(y[known], score[known])))
            out.append((name, "auprc", average_precision_score(y[known], score[known])))
    return _with_mean(out)


def recall(e, rows, text, name, pools, ranks=(1, 8)):
    """Recall by counting, query by query, who stands nearer; pools by binomial coefficients."""
    there = np.isfinite(text[rows]).all(1)
    image, text = e["image"][rows][there], text[rows][there]
    group, n, out = e["text_group"][rows][there], int(there.sum()), []
    for label, query, candidate in (
        (f"image to {name}", image, text),
        (f"{name} to image", text, image),
    ):
        better = []
        for i in range(n):
            near = candidate @ query[i]
            others = [near[j] for j in range(n) if group[j] != group[i]]
            ties = sum(v == near[i] for v in others)
            better.append(sum(v > near[i] for v in others) + math.ceil(ties / 2))
        for pool in [*(p for p in pools if p <= n), n]:
            for k in ranks:
                share = [
                    sum(math.comb(b, m) * math.comb(n - 1 - b, pool - 1 - m) for m in range(k))
                    / math.comb(n - 1, pool - 1)
                    for b in better
                ]
                size = "all" if pool == n else pool
                out.append((label, f"recall@{k} of {size}", np.mean(share)))
    return pd.DataFrame(out, columns=["label", "metric", "value"])


def at(e, site="internal", split="test"):
    """Rows of a site's test studies."""
    return np.flatnonzero((e["site"] == site) & (e["split"] == split))


def over_runs(base, profile, arm, judge):
    """What `judge` makes of an arm's embeddings; of the main arm the mean over its trainings."""
    names = list(run.main_runs(profile)) if arm == "main" else [arm]
    return averaged([judge(opened(base, name)) for name in names])


def averaged(tables):
    """Mean `value` over tables of the same rows."""
    every = pd.concat(tables)
    by = [c for c in every if c != "value"]
    return every.groupby(by, as_index=False, sort=False)["value"].mean()


def zero_shot_findings(base, profile):
    """Arms and both wordings; the main arm at the other sites."""
    parts = []

    def judged(e):
        wordings = ("reported", "paraphrased", "plain")
        made = [findings(e, at(e), w).assign(model=arm, wording=w) for w in wordings]
        for site in SITES[1:] if arm == "main" else ():
            found = findings(e, at(e, site))
            made.append(found.assign(model=f"main, {site}", wording="reported"))
        return pd.concat(made)

    for arm in [a for a in profile["arms"] if a != "ehr"]:
        parts.append(over_runs(base, profile, arm, judged))
    return pd.concat(parts).assign(task="zero-shot findings")


def phenotypes(base, profile):
    """Every arm."""
    least = profile["05_phenotypes"]["min_positive"]
    judged = lambda e: phecodes(e, at(e), least)  # noqa: E731
    parts = [over_runs(base, profile, a, judged).assign(model=a) for a in profile["arms"]]
    return pd.concat(parts).assign(task="phenotypes")


def retrieval(base, profile):
    """Arms that read reports, both texts."""
    pools, parts = profile["06_retrieval"]["pools"], []

    def judged(e):
        names = ("findings", "impression")
        return pd.concat([recall(e, at(e), e[name], name, pools) for name in names])

    for arm in [a for a in profile["arms"] if a != "ehr"]:
        parts.append(over_runs(base, profile, arm, judged).assign(model=arm))
    return pd.concat(parts).assign(task="retrieval")


def external(base, profile):
    """The three tasks of the main arm, site by site."""
    least, pools = profile["07_external"]["min_positive"], profile["06_retrieval"]["pools"]

    def judged(e):
        parts = []
        for site in SITES:
            rows = at(e, site)
            if len(rows) == 0:
                rows = at(e, site, "external")
            tasks = {
                "zero-shot findings": findings(e, rows),
                "phenotypes": phecodes(e, rows, least),
                "retrieval": recall(e, rows, e["findings"], "findings", pools),
            }
            parts += [t.assign(task=task, site=site) for task, t in tasks.items()]
        return pd.concat(parts)

    return over_runs(base, profile, "main", judged)


def five_year(base, profile):
    """From the predicted probabilities and the manifest's codes; the mean over seeds."""
    least = profile["08_five_year"]["min_events"]
    p = pd.read_parquet(Path(base) / "predictions" / "five_year.parquet")
    codes = pd.read_csv(Path(base) / "cohort" / "manifest.csv", dtype=str).set_index("study_id")
    parts = []
    for (start, fraction, _), part in p.groupby(["start", "fraction", "seed"]):
        out = []
        for disease, one in part.groupby("disease"):
            y = codes.loc[one["study_id"], f"five_year_{disease}"].map({"0": 0.0, "1": 1.0})
            known, is_ok = both_classes(y.to_numpy())
            if is_ok and (y == 1).sum() >= least and one["probability"].notna().all():
                y, score = y.to_numpy()[known], one["probability"].to_numpy()[known]
                out += [
                    (disease, "auroc", roc_auc_score(y, score)),
                    (disease, "auprc", average_precision_score(y, score)),
                    (disease, "brier", brier_score_loss(y, score)),
                ]
        model = f"{start}, {fraction:.0%}"
        found = _with_mean(out, "mean").assign(start=start, fraction=str(fraction), model=model)
        parts.append(found)
    return averaged(parts).assign(task="5-year disease")


def segmentation(base, _):
    """Mean over the scans that hold a structure, from the scores of each."""
    p = pd.read_parquet(Path(base) / "predictions" / "segmentation.parquet")
    same = p.groupby(["fraction", "study_id", "structure"])["is_missed"]
    p["distance_mm"] = p["distance_mm"].where(~same.transform("any"))  # of what all networks found
    long = p.melt(["structure", "study_id", "model", "fraction"], ["dice", "distance_mm"],
                  var_name="metric")  # fmt: skip
    by = ["model", "fraction", "structure", "metric"]
    each = long.dropna().groupby(by, as_index=False)["value"].mean()
    each = each.rename(columns={"structure": "label"})
    means = each.groupby(["model", "fraction", "metric"], as_index=False)["value"].mean()
    found = pd.concat([each, means.assign(label="mean")])
    return found.assign(task="segmentation", fraction=found["fraction"].astype(str))


def sweep(base, profile):
    """Macro values of the ablations' arms, each over its seeds."""
    pool, out = profile["12_ablations"]["pool"], []
    least = profile["12_ablations"]["min_positive"]
    for arm in profile["sweep"]["arms"]:
        seeds = []
        for seed in run.sweep_seeds(profile, arm):
            e = opened(base, f"{arm}-{seed}")
            rows = at(e)
            f, p = findings(e, rows), phecodes(e, rows, least)
            r = recall(e, rows, e["findings"], "findings", [pool])
            macro = lambda t, m: t[(t["label"] == "macro") & (t["metric"] == m)]["value"].item()  # noqa: E731
            both = r[r["metric"] == f"recall@1 of {pool}"]["value"].mean()
            seeds.append((macro(f, "f1"), macro(f, "auroc"), macro(p, "auroc"), both))
        names = ("zero-shot F1", "zero-shot AUROC", "phenotype AUROC", f"recall@1 of {pool}")
        out += [(arm, n, v) for n, v in zip(names, np.mean(seeds, axis=0), strict=True)]
    found = pd.DataFrame(out, columns=["label", "metric", "value"])
    return found.assign(task="ablation", kind="value")


def report_generation(base, _):
    """Wording, headings apart, by sacrebleu and rouge-score; findings by scikit-learn."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    from merlin.data.extract import label_table, section_table
    from merlin.vocabulary import NAMES

    texts = pd.read_parquet(Path(base) / "predictions" / "report_generation.parquet")
    sexes = pd.read_csv(Path(base) / "cohort" / "manifest.csv", dtype=str).set_index("study_id")
    sexes = sexes.loc[texts["study_id"], "sex"].tolist()
    rouge, parts = RougeScorer(["rouge2"], use_stemmer=True), []
    made = {"writer": "generated"} | {
        m: m for m in ("planned", "template", "nearest") if m in texts
    }
    said = {c: texts[c].tolist() for c in ("reference", *made.values())}
    present = {c: label_table(t, sexes) == 1 for c, t in said.items()}
    for model, column in made.items():
        true, found = present["reference"], present[column]
        bare = [[" ".join(t for t in row if t) for row in section_table(said[c])]
                for c in ("reference", column)]  # fmt: skip
        each = [rouge.score(r, g)["rouge2"].fmeasure for r, g in zip(*bare, strict=True)]
        out = [
            (
                "full report",
                "bleu",
                BLEU().corpus_score(bare[1], [bare[0]]).score / 100,
            ),
            ("full report", "rouge2", np.mean(each)),
            ("full report", "clinical_f1", f1_score(true.ravel(), found.ravel(), zero_division=0)),
        ]
        out += [
            (f"finding: {n}", "clinical_f1", f1_score(true[:, j], found[:, j], zero_division=0))
            for j, n in enumerate(NAMES)
            if true[:, j].any()
        ]
        out.append(("full report", "clinical_f1_macro", np.mean([v for *_, v in out[3:]])))
        out += _by_section(said["reference"], said[column], sexes, rouge)
        parts.append(pd.DataFrame(out, columns=["label", "metric", "value"]).assign(model=model))
    return pd.concat(parts).assign(task="report generation")


def _by_section(reference, made, sexes, rouge):
    """The same for each section, where its reference has one."""
    from sacrebleu.metrics import BLEU

    from merlin.data.extract import label_table, section_table
    from merlin.vocabulary import SECTIONS

    true, found, out = section_table(reference), section_table(made), []
    for s, name in enumerate(SECTIONS):
        use = [i for i, t in enumerate(true[:, s]) if t]
        r, g = [true[i, s] for i in use], [found[i, s] for i in use]
        who = [sexes[i] for i in use]
        each = [rouge.score(a, b)["rouge2"].fmeasure for a, b in zip(r, g, strict=True)]
        stated = [label_table(t, who) == 1 for t in (r, g)]
        out += [
            (name, "bleu", BLEU().corpus_score(g, [r]).score / 100),
            (name, "rouge2", np.mean(each)),
        ]
        if stated[0].any():
            f1 = f1_score(stated[0].ravel(), stated[1].ravel(), zero_division=0)
            out.append((name, "clinical_f1", f1))
    return out


def protocol_sensitivity(base, profile):
    """The choices that are plain to make again."""
    e = opened(base, "main")
    rows, pools = at(e), profile["15_protocol_sensitivity"]["pools"]
    headline = profile["15_protocol_sensitivity"]["headline_pool"]
    f1 = lambda e, w="reported": findings(e, rows, w).query("label == 'macro' and metric == 'f1'")  # noqa: E731
    negative = e | {"finding_labels": np.nan_to_num(e["finding_labels"])}
    ours = ("protocol: ours, as stated", "resampled unit: patient", "resampled unit: study")
    as_stated = (*ours, "prompt wording: as reports put it", "prompts per side: all",
                 "averaging: mean similarity", "missing labels: masked", "threshold: zero",
                 "negatives: natural")  # fmt: skip
    names = dict.fromkeys(as_stated, f1(e)) | {
        "prompt wording: radiologists' paraphrases": f1(e, "paraphrased"),
        "prompt wording: a layman's words": f1(e, "plain"),
        "missing labels: negative": f1(negative),
    }
    out = [("zero-shot findings", k, "macro f1", v["value"].item()) for k, v in names.items()]
    exact = (*ours, "equal reports: credited", "pools: all (exact)")
    for name, text in (
        ("query text: whole findings", e["findings"]),
        ("query text: whole impression", e["impression"]),
        *((name, e["findings"]) for name in exact),
        *((f"pool size: {p}", e["findings"]) for p in pools),
    ):
        size = int(name.split(": ")[1]) if name.startswith("pool size") else headline
        found = recall(e, rows, text, "findings", [size])
        first = found[(found["label"] == "image to findings")]
        value = first[first["metric"] == f"recall@1 of {size}"]["value"].item()
        out.append(("retrieval", name, "recall@1", value))
    return pd.DataFrame(out, columns=["task", "label", "metric", "value"])


REFEREES = {
    "report_generation": report_generation,
    "protocol_sensitivity": protocol_sensitivity,
    "zero_shot_findings": zero_shot_findings,
    "phenotypes": phenotypes,
    "retrieval": retrieval,
    "external": external,
    "five_year": five_year,
    "segmentation": segmentation,
    "ablations": sweep,
}


@cache
def again(name, base, profile_name):
    """What a table should hold."""
    return REFEREES[name](base, run.load_profile(profile_name))


def by_first_run(table):
    """The first run's values in the place of means over runs, where the runs do give that mean.

    Of reports a run's files hold the first writer's texts alone.
    """
    if "by_seed" not in table:
        return table
    values = []
    for value, said in zip(table["value"].astype(float), table["by_seed"].astype(str), strict=True):
        runs = [float(v) for v in said.split()]
        is_mean = len(runs) > 1 and abs(np.mean(runs) - value) <= 1e-5
        values.append(runs[0] if is_mean else value)
    return table.assign(value=values)


def disagree(name, table, base, profile, apart=2e-4):
    """Rows of a table that its own run's files contradict, as sentences, and how many were held."""
    found = again(name, base, profile)
    if name == "report_generation":
        table = by_first_run(table)
    keys = [k for k in ("task", "label", "metric", "model", "wording", "representation", "site",
                        "fraction", "start", "kind") if k in found and k in table]  # fmt: skip
    text = lambda t: t.assign(**{k: t[k].astype(str) for k in keys})  # noqa: E731
    both = text(found).merge(text(table), on=keys, suffixes=("_again", ""))
    if len(both) < len(found):
        return [f"{len(found) - len(both)} of {len(found)} values have no row"], len(both)
    both = both[both["status"] == "ok"]
    odd = both[~((both["value"] - both["value_again"]).abs() <= apart)]
    said = [
        f"{' '.join(str(row[k]) for k in keys)}: {row['value']:.4g}, but the run's own files give "
        f"{row['value_again']:.4g}"
        for _, row in odd.iterrows()
    ]
    return said, len(both)
