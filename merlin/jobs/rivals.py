"""What rivals of ours are given of every internal study: `python -m merlin.jobs.rivals default measured`.

`measured`: organs, from the label maps that the manifest names. `traits`: what a phantom's patients carry
and their true five-year risks, which no real cohort knows. `features-ARM`: what an arm's image encoder
says, as both of its heads read it. A table each in `runs/PROFILE/rivals/`, without rows where the cohort
has none of it; made again only where cohort, weights or code are others.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from merlin import jobs, run
from merlin.data import measurements
from merlin.vocabulary import DISEASES

KINDS = ("measured", "traits", "features-ARM")
HORIZON_YEARS = 5


def measured(studies: pd.DataFrame) -> pd.DataFrame:
    """`study_id`, and the columns of `measurements.measure`; of studies that name a label map."""
    drawn = studies.reindex(columns=["study_id", "volume", "label_map"]).dropna(subset="label_map")
    found = [
        {"study_id": r.study_id} | measurements.measure_study(r.volume, r.label_map)
        for r in tqdm(list(drawn.itertuples()), desc="organs", mininterval=5)
    ]
    return pd.DataFrame(found, columns=None if found else ["study_id"])


def traits(studies: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`study_id`, latent traits of a phantom's patient, and `risk DISEASE` within five years, if still healthy.

    Risks are of falling ill, not of being followed until then: their ranks are a ceiling, not their size.
    """
    from merlin.phantom import ehr, synthesis

    rows = []
    for r in studies.itertuples():
        p = synthesis.draw_patient(seed, str(r.patient_id), synthesis.SITES[str(r.site)])
        own = {n: getattr(p, n) for n in ("fat", "girth", "height", "bone", "renal")}
        hazard = ehr.hazards(p)
        risk = {f"risk {d}": 1 - np.exp(-HORIZON_YEARS * hazard[c]) for d, c in DISEASES.items()}
        rows.append({"study_id": r.study_id} | p.factors | own | risk)
    return pd.DataFrame(rows, columns=None if rows else ["study_id"])


def features(studies: pd.DataFrame, weights: Path, cache: Path) -> pd.DataFrame:
    """`study_id`, and a column a feature of the arm's frozen image encoder."""
    import torch

    from merlin.jobs.five_year import reader
    from merlin.model.cpu import prepare_cpu
    from merlin.training import diseases
    from merlin.training.checkpoint import load_weights

    prepare_cpu(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_weights(weights)[0].encode_image.to(device)
    read = reader(studies["volume"].tolist(), weights, cache)
    found = diseases.features(encoder, read, len(studies), device=device)
    return pd.DataFrame(found).rename(columns=str).assign(study_id=studies["study_id"].to_numpy())


def make(profile: str, kind: str) -> Path:
    """Make a table, unless it is there and was made from the same things; its path."""
    settings, base = run.load_profile(profile), run.folder(profile)
    source = run.upstream(base / "cohort" / "manifest.csv", "01_cohort")
    studies, path = jobs.internal(source), base / "rivals" / f"{kind}.parquet"
    follows: list[object] = [kind, run.cohort_hash(source)]
    if kind == "measured":
        mark = run.fingerprint(*follows, run.code_hash("merlin.data.measurements"))
        run.kept(path, mark, lambda: measured(studies))
    elif kind == "traits":
        seed = settings["cohort_seed"]
        is_drawn = settings["tier"] == "phantom"
        follows += [is_drawn, seed, run.code_hash("merlin.phantom.ehr"), run.file_hash(__file__)]
        known = studies if is_drawn else studies.iloc[:0]
        run.kept(path, run.fingerprint(*follows), lambda: traits(known, seed))
    else:
        arm = kind.removeprefix("features-")
        weights = base / "pretraining" / arm / "weights.safetensors"
        follows += [jobs.weights_hash(run.upstream(weights, "02_pretraining"))]
        follows += [run.code_hash("merlin.training.diseases", "merlin.data.preprocess")]
        run.kept(
            path, run.fingerprint(*follows), lambda: features(studies, weights, base / "cache")
        )
    path.touch()  # newer than its inputs
    return path


def main() -> None:
    """The command line: a profile, and the kind of table."""
    parser = argparse.ArgumentParser(prog="python -m merlin.jobs.rivals")
    parser.add_argument("profile")
    parser.add_argument("kind", help=", ".join(KINDS))
    args = parser.parse_args()
    if args.kind not in KINDS[:2] and not args.kind.startswith("features-"):
        parser.error(f"no kind {args.kind!r}: {', '.join(KINDS)}")
    make(args.profile, args.kind)


if __name__ == "__main__":
    main()
