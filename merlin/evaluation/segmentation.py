"""Segmentation scores in millimetres on the scan's own grid.

An organ that the model misses altogether scores Dice 0 and has no surface, so no distance: misses are
counted in a row of their own, and distances are of organs that every network compared has found, the
same for all. An organ that the scan does not hold is not evaluated there.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from merlin.data.scan import Volume
from merlin.evaluation import results
from merlin.evaluation.readings import excludes_zero, with_interval
from merlin.statistics import bootstrap, seeds

METRICS = ("dice", "distance_mm", "missed")
IS_FLAT = (
    0.01  # what the curve of a network that has learnt may still rise in its last third, in Dice
)


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks; NaN where the truth is empty.

    Parameters
    ----------
    predicted, truth : bool arrays of one shape
    """
    size = truth.sum()
    if size == 0:
        return np.nan
    return float(2 * (predicted & truth).sum() / (predicted.sum() + size))


def surface_distance(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> float:
    """Average symmetric surface distance in mm.

    The mean over all surface voxels of either mask of the distance to the other mask's surface, as
    MONAI's `compute_average_surface_distance(symmetric=True)`.

    Returns
    -------
    float
        NaN where the truth is empty, infinite where only the prediction is.
    """
    if not truth.any():
        return np.nan
    if not predicted.any():
        return np.inf
    either = predicted | truth
    box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in np.nonzero(either))
    predicted, truth = predicted[box], truth[box]
    one, other = _surface(predicted), _surface(truth)
    to_truth = ndimage.distance_transform_edt(~other, sampling=spacing_mm)[one]
    to_predicted = ndimage.distance_transform_edt(~one, sampling=spacing_mm)[other]
    return float((to_truth.sum() + to_predicted.sum()) / (to_truth.size + to_predicted.size))


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def score_scan(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], structures: Sequence[str], *,
    annotated: Sequence[str] | None = None,
) -> list[dict]:  # fmt: skip
    """Dice and surface distance of every structure of one scan.

    Parameters
    ----------
    predicted, truth : (i, j, k) uint8
        Label maps on the native grid; structure number i + 1 is `structures[i]`.
    spacing_mm : (3,) float
    structures : sequence of str
    annotated : sequence of str, optional
        Structures that the truth was drawn for; default all.

    Returns
    -------
    list of dict
        `structure, dice, distance_mm, is_missed, n_voxels`; absent structures have NaN scores, missed ones
        a NaN distance.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in shape")
    rows = []
    for number, name in enumerate(structures, 1):
        if annotated is not None and name not in annotated:
            continue
        p, t = predicted == number, truth == number
        distance = surface_distance(p, t, spacing_mm)
        rows.append(
            dict(
                structure=name,
                dice=dice(p, t),
                distance_mm=np.nan if np.isinf(distance) else distance,
                is_missed=bool(t.any() and not p.any()),
                n_voxels=int(t.sum()),
            )
        )
    return rows


def evaluate(
    scores: pd.DataFrame, structures: Sequence[str], *, model: str, split: str, n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, dict]:  # fmt: skip
    """Dice, distance and misses per structure and over all structures, with intervals.

    Parameters
    ----------
    scores : DataFrame
        `study_id, patient_id, structure, dice, distance_mm, is_missed` of one model, `seed` where it was
        trained with several, and `in_all`, where distances are of structures that other models found too.
    structures : sequence of str

    Returns
    -------
    table : DataFrame
        Common schema, with `n_seeds` and `by_seed`; `mean` and `median` are over structures.
        `n_positive` counts the scans that count for the structure: for `distance_mm`, those in which
        all found it. `missed` is the share of scans in which the model found nothing of it.
    resampled : dict of metric to (n_seeds, n_structures, 1 + n_resamples) float
    """
    if "seed" not in scores:
        scores = scores.assign(seed=0)
    ids = scores[["study_id", "patient_id"]].drop_duplicates()
    patients = ids["patient_id"].to_numpy(str)
    weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
    rows: list[dict] = []
    resampled: dict[str, np.ndarray] = {}
    scores = _comparable(scores)
    for metric in METRICS:
        runs = [
            run.pivot(index="study_id", columns="structure", values=metric)
            .reindex(index=ids["study_id"], columns=list(structures)).to_numpy(float)
            for _, run in scores.groupby("seed")
        ]  # fmt: skip
        known = ~np.isnan(runs[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            held = known.astype(float).T @ weights
            found = np.stack([np.nan_to_num(r).T @ weights / held for r in runs])
        n = known.sum(0)
        for j, name in enumerate(structures):
            why = (
                "found in none by all"
                if metric == "distance_mm"
                else f"in none of {len(ids)} scans"
            )
            about = dict(n_positive=n[j], is_ok=bool(n[j]), reason="" if n[j] else why)
            about |= dict(known=known[:, j], patient_ids=patients)
            rows.append(results.row(name, metric, found[:, j], **about))
        about = dict(known=known.any(1), patient_ids=patients, n_positive=(n > 0).sum())
        about |= dict(is_ok=bool(n.any()))
        about |= dict(reason="" if n.all() else f"{int((n == 0).sum())} structures not evaluated")
        for label, over in (("mean", bootstrap.macro), ("median", _median)):
            drawn = np.stack([over(f) for f in found])
            rows.append(results.row(label, metric, drawn, **about))
        resampled[metric] = found
    return results.table("segmentation", rows, model=model, split=split), resampled


def _comparable(scores: pd.DataFrame) -> pd.DataFrame:
    """With a column `missed`, and distances of what every seed (and every model, by `in_all`) found."""
    held = scores["dice"].notna()
    missed = scores["is_missed"].astype(float).where(held)
    everywhere = ~scores.groupby(["study_id", "structure"])["is_missed"].transform("any")
    if "in_all" in scores:
        everywhere &= scores["in_all"]
    return scores.assign(missed=missed, distance_mm=scores["distance_mm"].where(everywhere))


def _median(values: np.ndarray) -> np.ndarray:
    """(n_structures, n_resamples) → median over structures inside each resample."""
    known = ~np.isnan(values)
    return np.array(
        [np.median(v[k]) if k.any() else np.nan for v, k in zip(values.T, known.T, strict=True)]
    )


def of_jobs(
    made: dict[str, pd.DataFrame], settings: SimpleNamespace
) -> tuple[dict[tuple[str, float], pd.DataFrame], pd.DataFrame]:
    """What the jobs of `10_segmentation` left, the seeds of a network together.

    Parameters
    ----------
    made : dict of str to DataFrame
        Tables by name: `merlin-1` for network and seed, `curve-` where it is one, and the share of labels.
    settings : SimpleNamespace
        With `fractions`.

    Returns
    -------
    scores : dict of (network, fraction) to DataFrame
        As `by_network` takes them.
    curves : DataFrame
        As `training` takes them.
    """
    scores: dict[tuple[str, float], list[pd.DataFrame]] = {}
    curves = []
    for fraction in sorted(settings.fractions):
        for name, table in made.items():
            if not name.endswith(f"-{fraction:g}"):
                continue
            job = name.removesuffix(f"-{fraction:g}")
            if job.endswith("-curve"):
                curves.append(table)
                continue
            kind, _, seed = job.partition("-")
            scores.setdefault((kind, fraction), []).append(table.assign(seed=int(seed or 0)))
    return {k: pd.concat(v, ignore_index=True) for k, v in scores.items()}, pd.concat(curves)


def by_network(
    scores: dict[tuple[str, float], pd.DataFrame], structures: Sequence[str], *, n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """`evaluate` for every network, share of the labels and split; and how far ours is ahead on test scans.

    Parameters
    ----------
    scores : dict of (network, fraction) to DataFrame
        Rows of `score_scan` with `study_id, patient_id, split`, and `seed`.

    Returns
    -------
    table : DataFrame
        With a column `fraction`.
    paired : DataFrame
        As `differences` has it.
    """
    missed_by_one = {
        f: set(pd.concat([t for (_, g), t in scores.items() if g == f]).query("is_missed")
               .set_index(["study_id", "structure"]).index)
        for f in dict.fromkeys(f for _, f in scores)
    }  # fmt: skip
    tables, drawn = [], {}
    for (kind, fraction), table in scores.items():
        cells = pd.MultiIndex.from_frame(table[["study_id", "structure"]])
        table = table.assign(in_all=~cells.isin(missed_by_one[fraction]))
        for split, part in table.groupby("split"):
            options = dict(split=split, n_resamples=n_resamples, seed=seed)
            made, found = evaluate(part, structures, model=kind, **options)
            tables.append(made.assign(fraction=fraction))
            if split == "test":
                drawn[kind, fraction] = found
    n_patients = next(iter(scores.values())).query("split == 'test'")["patient_id"].nunique()
    return pd.concat(tables, ignore_index=True), differences(drawn, n_patients)


def differences(drawn: dict[tuple[str, float], dict], n_patients: int) -> pd.DataFrame:
    """Ours minus each other network, at each share of the labels, on the same resamples.

    Parameters
    ----------
    drawn : dict of (network, fraction) to `resampled` of `evaluate`
    n_patients : int
        Of the test scans.

    Returns
    -------
    DataFrame
        `merlin minus, fraction, metric, n_patients` and what `results.difference` gives. Each metric is the
        mean over structures of the differences; `dice_median` their median; `organs_better` in how many
        structures our Dice is higher. The spread between seeds is pooled over the networks of a share.
    """
    rows = []
    for f in dict.fromkeys(f for _, f in drawn):
        here = {kind: found for (kind, g), found in drawn.items() if g == f}
        ours = here["merlin"]
        for other in (k for k in here if k != "merlin"):
            for metric in METRICS:
                means = {
                    k: np.stack([bootstrap.macro(x) for x in v[metric]]) for k, v in here.items()
                }
                pooled = seeds.pooled_spread([m[:, 0] for m in means.values()])
                gap = results.difference(
                    means["merlin"], means[other], metric, n=n_patients, spread=pooled
                )
                rows.append((other, f, metric, gap))
            n = max(len(ours["dice"]), len(here[other]["dice"]))
            gaps = np.broadcast_to(ours["dice"] - here[other]["dice"], (n, *ours["dice"].shape[1:]))
            for metric, over, named in (
                ("dice_median", _median, "dice"),
                ("organs_better", _n_better, "n above zero"),
            ):
                each = np.stack([over(g) for g in gaps])
                gap = results.difference(each, np.zeros_like(each), named, n=n_patients)
                if metric == "organs_better":  # a count ends at none and at all
                    gap |= {k: float(np.clip(gap[k], 0, gaps.shape[1])) for k in ("low", "high")}
                rows.append((other, f, metric, gap))
    columns = ("merlin minus", "fraction", "metric")
    made = [dict(zip(columns, row, strict=False)) | row[3] for row in rows]
    return pd.DataFrame(made).assign(n_patients=n_patients)


def _n_better(gaps: np.ndarray) -> np.ndarray:
    """(n_structures, n_resamples) differences → in how many structures they are above zero."""
    return (gaps > 0).sum(0).astype(float)


def training(curves: pd.DataFrame) -> pd.DataFrame:
    """What each network's training took, and whether it had learnt what it can by then.

    Parameters
    ----------
    curves : DataFrame
        `model, fraction, seed, step, core_seconds, dice`: Dice of validation scans on the way.

    Returns
    -------
    DataFrame
        `model, fraction, n_seeds, steps, core_seconds, dice, gain, is_flat`, means over seeds. `gain` is
        what the last third of the steps added; below `IS_FLAT` the network has learnt what it can.
    """
    rows = []
    for (model, fraction), part in curves.groupby(["model", "fraction"], sort=False):
        ends = [run.sort_values("step").iloc[-1] for _, run in part.groupby("seed")]
        before = [
            np.interp(2 / 3 * end["step"], run["step"], run["dice"])
            for end, (_, run) in zip(ends, part.sort_values("step").groupby("seed"), strict=True)
        ]
        last = {k: float(np.mean([e[k] for e in ends])) for k in ("step", "core_seconds", "dice")}
        gain = last["dice"] - float(np.mean(before))
        about = dict(model=model, fraction=fraction, n_seeds=len(ends), steps=int(last["step"]) + 1)
        about |= dict(core_seconds=last["core_seconds"], dice=last["dice"], gain=gain)
        rows.append(about | dict(is_flat=bool(gain < IS_FLAT)))
    return pd.DataFrame(rows)


def middle_slices(
    volume: Volume, label_maps: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], float]:
    """The middle coronal slice of a scan and of label maps on its grid, head up, patient's right at the left.

    Returns
    -------
    slices : dict of str to (S, R) array
        The scan's as `ct`.
    aspect : float
        Height of a pixel over its width.
    """
    turn = nib.orientations.io_orientation(volume.affine)
    as_ras = {
        k: nib.orientations.apply_orientation(v, turn)
        for k, v in ({"ct": volume.hu} | label_maps).items()
    }
    middle = as_ras["ct"].shape[1] // 2
    step = dict(zip(volume.orientation, volume.spacing_mm, strict=True))
    across = next(v for k, v in step.items() if k in "RL")
    along = next(v for k, v in step.items() if k in "SI")
    return {k: v[::-1, middle, ::-1].T for k, v in as_ras.items()}, along / across


def reading(table: pd.DataFrame, paired: pd.DataFrame, trained: pd.DataFrame) -> str:
    """What `by_network` found on test scans, in words; of a rival that had not finished learning, only that."""
    means = {
        (r["model"], r["fraction"], r["metric"]): r
        for _, r in table.query("label == 'mean' and split == 'test'").iterrows()
    }
    gaps = {(r["merlin minus"], r["fraction"], r["metric"]): r for _, r in paired.iterrows()}
    few, most = min(table["fraction"]), max(table["fraction"])
    ours, missed = (means["merlin", most, m] for m in ("dice", "missed"))
    said = [
        f"Mean Dice over structures with all labels: {with_interval(ours)} from our pretraining, "
        f"{with_interval(means['scratch', most, 'dice'])} from random weights (means of "
        f"{ours['n_seeds']} seeds, {ours['n_patients']} patients)."
    ]
    for share in dict.fromkeys((few, most)):
        gap, median = (gaps["scratch", share, m] for m in ("dice", "dice_median"))
        better, far = (gaps["scratch", share, m] for m in ("organs_better", "distance_mm"))
        said.append(
            f"With {share:.0%} of the labels, pretraining minus random weights: {with_interval(gap, '+.3f')}, "
            f"which {excludes_zero(gap)}; median over structures {with_interval(median, '+.3f')}, better on "
            f"{better['value']:.1f} of {ours['n_positive']} a seed, surface distance {with_interval(far, '+.1f')} mm."
        )
    said.append(
        f"Ours missed {missed['value']:.1%} of the structures that there were, random weights "
        f"{means['scratch', most, 'missed']['value']:.1%}; distances are of those that all found."
    )
    for row in trained[trained["model"] == "dynunet"].itertuples():
        name = f"DynUNet with {row.fraction:.0%} of the labels"
        if row.is_flat:
            gap = gaps["dynunet", row.fraction, "dice"]
            said.append(
                f"Ours minus {name}: {with_interval(gap, '+.3f')}, which {excludes_zero(gap)}."
            )
        else:
            said.append(
                f"{name} had not finished learning after {row.core_seconds:,.0f} core-seconds (its last "
                f"third added {row.gain:+.3f} Dice on validation): nothing is said of it."
            )
    return " ".join(said)


def reading_of_real(table: pd.DataFrame, tier: str) -> str:
    """What our network with all labels does on real scans, where any were given."""
    seen = table.query(
        "split == 'real' and model == 'merlin' and label == 'mean' and metric == 'dice'"
    )
    seen = seen[seen["fraction"] == max(table["fraction"])]
    if seen.empty:
        return "No real scan was given (`real_scans` or `totalsegmentator` of the profile)."
    mean = seen.iloc[0]
    said = f"**On {mean['n_studies']} real scans:** mean Dice {mean['value']:.3f} over {mean['n_positive']} structures."
    if tier == "phantom":
        said += (
            " The model has only seen phantoms: this is no result about segmentation of patients; it says "
            "how far a phantom is from one."
        )
    return said
