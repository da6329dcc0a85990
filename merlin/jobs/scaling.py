"""Jobs of `13_scaling_laws`: new phantoms for the sweep's grid, and trainings on some of them.

    python -m merlin.jobs.scaling smoke pool
    python -m merlin.jobs.scaling smoke 32 48

The second trains on 32 studies, then on 48, in both regimes and with every seed, and leaves embeddings of
the cohort's test studies; weights are not kept.
"""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from merlin import run
from merlin.data.extract import report_sentences, section_table
from merlin.data.impression import split_impression
from merlin.data.phecodes import phecode_labels
from merlin.data.preprocess import Grid
from merlin.phantom import pool
from merlin.phantom.build import Job
from merlin.streams import Stream, stream_of
from merlin.training import encode_arm, pretraining_run
from merlin.training.data import Studies
from merlin.training.sentence_file import read_sentences


def make_pool(profile: dict, *, n_workers: int) -> None:
    """The phantoms of a profile's largest size, on the grid of its sweep."""
    base = profile["02_pretraining"] | profile["sweep"]["base"]
    grid = Grid(tuple(base["spacing_mm"]), tuple(base["grid_shape"]))
    drawn = profile["01_cohort"]
    like = Job(
        profile["cohort_seed"], "internal", "", 1, "train", drawn["matrix"], "",
        wrong_statements=drawn["wrong_statements"],
    )  # fmt: skip
    folder, n = run.folder(profile["profile"]) / "pool", int(max(profile["sweep"]["sizes"]))
    pool.make(folder, n, like=like, grid=grid, n_workers=n_workers)
    if base["text"] == "sentences":  # read once, not by every size
        texts = pool.read(folder).studies["findings"].fillna("")
        said = {s for t in texts for s in report_sentences(split_impression(t)[0])}
        read_sentences(sorted(said), run.folder(profile["profile"]) / "cache", show=True)


def studies_of(
    made: pool.Pool, rows: np.ndarray, cohort: pretraining_run.Cohort, *, headings: bool = False
) -> Studies:
    """Some studies of a pool, as pretraining sees them."""
    table, coding = made.studies.iloc[rows], cohort.coding
    ids = table["study_id"].to_numpy(str)
    codes = made.codes[made.codes["study_id"].isin(set(ids))]
    phecodes, uncoded = cohort.phenotypes["phecode"], coding.rules["uncoded"]
    labels = phecode_labels(
        codes, ids, coding.code_map, phecodes, uncoded=uncoded, rollup=coding.rules["rollup"]
    )
    texts = table["findings"].fillna("")
    findings = texts.map(lambda t: split_impression(t)[0]).to_numpy(object)
    return Studies(
        study_ids=ids,
        patient_ids=table["patient_id"].to_numpy(str),
        volumes=lambda i: made.image(int(rows[i])),
        findings=findings,
        sections=section_table(findings, headings=headings),
        phecodes=labels,
    )


def train(profile: dict, n: int) -> None:
    """Train on `n` studies of the pool, in every regime with every seed, and encode the test studies.

    Each seed has studies of its own choice, those of another size no more alike than chance has it: what
    luck one size has, the next does not share.
    """
    base = run.folder(profile["profile"])
    made = pool.read(base / "pool")
    for name in run.scaling_names(profile, [n]):
        settings = _settings(profile["profile"], name)
        cohort = pretraining_run.read_cohort(settings)
        headed = settings.section_headings

        def drawn(
            seed: int, cohort: pretraining_run.Cohort = cohort, headings: bool = headed
        ) -> Studies:
            order = stream_of(seed, Stream.SHARE, n).permutation(len(made.studies))
            return studies_of(made, order[:n], cohort, headings=headings)

        mark = run.fingerprint(n, run.array_hash(made.volumes[0]), len(made.studies))
        arm = pretraining_run.prepare(settings, replace(cohort, drawn=drawn, drawn_from=mark))
        trained = pretraining_run.train(arm)
        pretraining_run.save(arm, trained)
        encode_arm.encode_sweep(arm, trained)
        for one in trained:
            for file in ("weights.safetensors", "checkpoint.pt"):
                (base / "pretraining" / one / file).unlink(missing_ok=True)


def _settings(profile: str, name: str) -> SimpleNamespace:
    """Of one run; its warm-up takes a fifth of the steps at most."""
    settings = run.settings("02_pretraining", {"profile": profile, "arm": name})
    settings.warmup_steps = min(settings.warmup_steps, max(settings.n_steps // 5, 1))
    return settings


def main() -> None:
    """The command line: a profile, and `pool` or a number of studies."""
    parser = argparse.ArgumentParser(prog="python -m merlin.jobs.scaling")
    parser.add_argument("profile")
    parser.add_argument("job", nargs="+", help="`pool`, or numbers of studies, as 250")
    args = parser.parse_args()
    profile = run.load_profile(args.profile)
    known = {str(int(n)): int(n) for n in profile["sweep"]["sizes"]}
    if args.job == ["pool"]:
        make_pool(profile, n_workers=profile["01_cohort"]["n_workers"])
    elif unknown := set(args.job) - set(known):
        parser.error(f"no job {min(unknown)!r} in profile {args.profile}: pool, {', '.join(known)}")
    else:
        for size in args.job:
            train(profile, known[size])


if __name__ == "__main__":
    main()
