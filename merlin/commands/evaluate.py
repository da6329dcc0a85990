"""`merlin evaluate`: embeddings files and tables of scores, judged side by side on the same patients."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from merlin.commands.out import refuse_existing, save_picture, say
from merlin.embeddings import Embeddings, load_embeddings
from merlin.evaluation import off_shelf, scores
from merlin.files import write_csv
from merlin.run.notebook import unit
from merlin.vocabulary import SPLIT_NAMES
from merlin.words import lines

Judged = Embeddings | scores.ScoreTable
MEANT = {"f1": "f1 (of the positive class, macro over findings)",
         "f1_balanced": "f1_balanced (of the positive class, on class-balanced draws, macro)"}  # fmt: skip


def evaluate(
    paths: Sequence[Path],
    out: Path,
    *,
    names: Sequence[str] | None,
    site: str | None,
    split: str,
    threshold: str,
    labels: str | None,
    id_column: str,
    uncertain: str,
    mask_nan: bool,
    pools: Sequence[int],
    min_positive: int,
    resamples: int,
    seed: int,
    overwrite: bool,
) -> int:
    """Read, judge, write and tell; returns the exit code: 1 if a file was refused."""
    target = out / "results.csv"
    refuse_existing(target, overwrite, ("comparison.png", "paired.csv"))
    named = name_files(names, paths)
    if min(pools) < 2:
        raise ValueError(f"--pools {min(pools)}: a pool holds two candidates or more")
    if min(resamples, min_positive) < 1:
        raise ValueError("--resamples and --min-positive: expected 1 or more")
    above, unused = _threshold(threshold)
    if id_column != "study_id" and not labels and not any(map(_is_table, paths)):
        raise ValueError(f"--id {id_column} names a column of a table; there is none")
    how = dict(labels=labels, id_column=id_column, uncertain=uncertain)
    files, refused = _read_all(named, how, dict(mask_nan=mask_nan, threshold=above), unused)
    if not files:
        raise ValueError("no file can be judged\n" + "\n".join(refused))
    for text in refused:
        sys.stderr.write(lines(f"merlin evaluate: {text}") + "\n")
    table, paired = off_shelf.evaluate(
        files,
        site=site,
        split=_split(split, files),
        pools=list(pools),
        min_positive=min_positive,
        threshold="validation" if threshold == "validation" else None,
        n_resamples=resamples,
        seed=seed,
    )
    if not table["status"].eq("ok").any():
        said = dict.fromkeys(f"  {r.model}: {r.task}: {r.reason}" for r in table.itertuples())
        raise ValueError("nothing can be judged\n" + "\n".join(said))
    write_csv(target, table)
    write_csv(out / "paired.csv", paired)
    first = next(iter(files.values()))
    n, units = int(table["n_patients"].max()), unit(first.patient_id, first.study_id)
    tiers = sorted({str(e.meta.get("tier", "unknown")) for e in files.values()})
    facts = {
        "tier_note": f"tier: {', '.join(tiers)}",
        "n": {units: n},
        "interval": f"95% interval, {resamples:,} resamples of {units}",
        "profile": "none",
        "seed": seed,
        "pool": 64 if 64 in pools else pools[0],
    }
    _draw(out / "comparison.png", table, facts)
    _tell(table, files)
    say(f"Wrote {target} ({len(table)} rows, {n} {units} in common) and comparison.png.")
    return 1 if refused or table["reason"].str.startswith(off_shelf.REFUSED).any() else 0


def name_files(names: Sequence[str] | None, paths: Sequence[Path]) -> dict[str, Path]:
    """Files by the models' names, which are the files' own where none are given."""
    if not names:
        names = [p.stem for p in paths]
        if len(set(names)) != len(names):
            names = [str(p.with_suffix("")) for p in paths]
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise ValueError(f"--names: {len(names)} for {len(paths)} files; each needs one of its own")
    return dict(zip(names, paths, strict=True))


def _is_table(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(scores.SUFFIXES)


def _threshold(said: str) -> tuple[float | None, list[str]]:
    """None finds one by the scores' kind, NaN on the validation split; what to note where it isn't used."""
    if said in ("auto", "validation"):
        return (None if said == "auto" else math.nan), []
    try:
        value = float(said)
    except ValueError:
        raise ValueError(f"--threshold {said}: a number, or validation") from None
    if not math.isfinite(value):
        raise ValueError(f"--threshold {said}: expected a finite number, or validation")
    return value, [f"--threshold {said} is for tables of scores; not used here"]


def _split(said: str, files: Mapping[str, Judged]) -> str | None:
    """The split that is meant, as a file calls it or as we do; None for all."""
    if said == "all":
        return None
    if not said or any((e.split == said).any() for e in files.values()):
        return said
    return SPLIT_NAMES.get(said.lower(), said.lower())


def _read_all(
    paths: Mapping[str, Path], how: dict, scored: dict, unused: list[str]
) -> tuple[dict[str, Judged], list[str]]:
    """Files by name, and why others cannot be read; tables without labels know what another file labels."""
    files: dict[str, Judged] = {}
    refused: dict[str, str] = {}
    for again in (False, True):
        judged = next((e.finding for e in files.values() if len(e.finding)), ())
        for name, path in paths.items():
            if again and not (len(judged) and (name in refused or not len(files[name].finding))):
                continue
            try:
                if path.is_file() and _is_table(path):
                    files[name] = scores.read_scores(path, **how, **scored, judged=judged)
                else:
                    files[name] = read_embeddings(path, how, unused)
                refused.pop(name, None)
            except Exception as error:  # noqa: BLE001 - one file's fault must not cost the others
                files.pop(name, None)
                known = isinstance(error, ValueError | OSError)
                kind = "" if known else f"{type(error).__name__}: "
                refused[name] = f"{name} is refused: {kind}{error}"
    return {n: files[n] for n in paths if n in files}, [refused[n] for n in paths if n in refused]


def read_embeddings(path: Path, how: dict, unused: list[str]) -> Embeddings:
    """An embeddings file, with labels of a table in place of its own where one was given."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path.name}: expected .npz, or a table ({', '.join(scores.SUFFIXES)})")
    e = load_embeddings(path)
    notes: list[str] = []
    if how["labels"]:
        rules = {k: v for k, v in how.items() if k != "labels"}
        asked = e.study_id, e.prompt_finding
        finding, labels, notes = scores.read_labels(how["labels"], *asked, **rules)
        e = replace(e, finding=finding, finding_labels=labels)
        notes = [*notes, "labels from --labels, not the file's own"]
    return replace(e, meta=e.meta | {"notes": [*e.meta.get("notes", ()), *notes, *unused]})


def _draw(path: Path, table: pd.DataFrame, facts: dict) -> None:
    from merlin.figures.off_shelf import draw_comparison

    save_picture(path, draw_comparison, {"": table}, facts)


def _tell(table: pd.DataFrame, files: Mapping[str, Judged]) -> None:
    """Print what reading changed, and one line for each macro value; no remark twice."""
    told = {name: set(e.meta.get("notes", ())) for name, e in files.items()}
    for name, e in files.items():
        for note in e.meta.get("notes", ()):
            say(f"{name}: {note}")
    for row in table[table["label"].eq("macro") | table["metric"].eq("recall")].itertuples():
        said = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"]
        if row.status != "ok":
            said = ["not evaluated"]
        said += [t for t in row.reason.split("; ") if t and t not in told[row.model]]
        told[row.model] |= set(said[1:])
        say(f"{row.model}: {row.task}, {MEANT.get(row.metric, row.metric)}: {'; '.join(said)}")
