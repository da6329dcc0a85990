"""`merlin five-year`: a fine-tuned five-year model, judged on the labels of a cohort."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from merlin.commands.out import refuse_existing, save_picture, say
from merlin.data.manifest import load_manifest
from merlin.data.preprocess import Grid, load_input
from merlin.evaluation import five_year
from merlin.files import write_csv
from merlin.model.cpu import prepare_cpu
from merlin.readers import survey
from merlin.run.notebook import SYNTHETIC, counts, unit
from merlin.run.profile import TIER_NOTES
from merlin.training import diseases, official


def judge(
    manifest: str,
    out: Path,
    *,
    weights: str,
    split: str,
    site: str,
    cache: str | None,
    workers: int,
    min_events: int,
    resamples: int,
    seed: int,
    overwrite: bool,
) -> int:
    """Encode, judge, write and tell; returns the exit code: 1 if a volume could not be read."""
    target = out / "results.csv"
    refuse_existing(target, overwrite, ("five_year.png", "predictions.csv", "unreadable.csv"))
    model, names, facts = official.load_five_year(weights)
    studies = _labelled(manifest, names, split)
    studies = _of_site(studies, manifest, site)
    flow = five_year.flow(studies, names)
    studies = studies[~np.isnan(_labels(studies, names)).all(1)].reset_index(drop=True)
    if studies.empty:
        raise ValueError(f"{manifest}: no study of split {split} at site {site} has a label 0 or 1")
    grid = Grid(**{k: tuple(facts["grid"][k]) for k in ("spacing_mm", "shape", "hu_window")})
    cache_dir = Path(cache or out / "cache")
    seen = survey.survey(studies, grid, cache_dir=cache_dir, n_workers=workers)
    bad = seen[seen["status"] == "quarantined"]
    studies = studies[~studies["study_id"].isin(bad["study_id"])].reset_index(drop=True)
    if studies.empty:
        raise ValueError(
            f"none of {len(bad)} volumes can be read; the first: {bad.iloc[0]['reason']}"
        )
    p, labels = _predicted(model, studies, grid, cache_dir), _labels(studies, names)
    who, ids = studies["patient_id"].to_numpy(str), studies["study_id"].to_numpy(str)
    options = dict(min_events=min_events, n_resamples=resamples, seed=seed)
    table, _ = five_year.evaluate(
        p, labels, who, names, model=Path(weights).stem, split=split, **options
    )
    write_csv(target, table)
    predicted = pd.DataFrame(p, columns=names)
    write_csv(
        out / "predictions.csv",
        pd.concat([studies[["study_id", "patient_id"]], predicted], axis=1),
    )
    write_csv(out / "unreadable.csv", bad[["study_id", "reason"]])
    bins = five_year.reliability(p.ravel(), labels.ravel()).assign(start="merlin")
    _draw(
        out / "five_year.png",
        {"": table, "flow": flow, "reliability": bins},
        {
            "tier_note": _tier_note(manifest, facts["tier"]),
            "n": counts(who, ids, "studies") | ({"unreadable": len(bad)} if len(bad) else {}),
            "interval": f"95% interval, {resamples:,} resamples of {unit(who, ids)}",
            "profile": facts["profile"],
            "seed": seed,
            "split": split,
            "site": site,
        },
    )
    for row in table[table["metric"] == "auroc"].itertuples():
        said = (
            f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}], {row.n_positive} of {row.n_studies}"
        )
        say(f"{row.label}: AUROC {said if row.status == 'ok' else row.reason}")
    say(f"Wrote {target} ({len(studies)} studies, {len(bad)} could not be read) and five_year.png.")
    return 1 if len(bad) else 0


def _labels(studies: pd.DataFrame, names: list[str]) -> np.ndarray:
    return five_year.labels_from_codes(studies[[f"five_year_{n}" for n in names]])


def _labelled(manifest: str, names: list[str], split: str) -> pd.DataFrame:
    """Studies of a split, of a manifest that labels every disease."""
    studies = load_manifest(manifest)
    missing = [f"five_year_{n}" for n in names if f"five_year_{n}" not in studies]
    if missing:
        raise ValueError(f"{manifest}: no column {', '.join(missing)}; nothing to judge by")
    return studies[studies["split"] == split]


def _of_site(studies: pd.DataFrame, manifest: str, site: str) -> pd.DataFrame:
    """Studies of a site, or all; a study that names none is internal."""
    if "site" not in studies or site == "all":
        return studies
    sites = studies["site"].fillna("internal")
    n_elsewhere = int((sites != site).sum())
    if n_elsewhere == len(studies) > 0:
        found = ", ".join(sorted(set(sites)))
        raise ValueError(f"{manifest}: no site {site}; found {found}. Name one, or all.")
    if n_elsewhere:
        say(f"{n_elsewhere} studies of other sites than {site} sit out.")
    return studies[sites == site]


def _predicted(
    model: diseases.DiseaseModel, studies: pd.DataFrame, grid: Grid, cache_dir: Path
) -> np.ndarray:
    """(n, n_diseases) probabilities."""
    prepare_cpu()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = studies["volume"].tolist()

    def batch(index: np.ndarray) -> torch.Tensor:
        read = [load_input(paths[int(i)], grid, cache_dir=cache_dir).image for i in index]
        return torch.from_numpy(np.stack(read))[:, None]

    return diseases.predict(model.to(device), batch, len(paths), device=device, desc="studies")


def _tier_note(manifest: str, tier: str) -> str:
    note = f"weights of the {tier} tier"
    if (Path(manifest).parent / SYNTHETIC).exists():
        return note + f" on a {TIER_NOTES['phantom']}"
    return note + (
        ", trained on synthetic phantoms: not a clinical result" if tier == "phantom" else ""
    )


def _draw(path: Path, tables: dict[str, pd.DataFrame], facts: dict) -> None:
    from merlin.figures.adapted import draw_given_five_year

    save_picture(path, draw_given_five_year, tables, facts)
