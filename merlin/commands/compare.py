"""`merlin compare`: linear probes, few-shot and zero-shot of any encoders' embeddings, at one table."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from merlin.commands.evaluate import name_files, read_embeddings
from merlin.commands.out import refuse_existing, save_picture, say
from merlin.data.cells import read_ids
from merlin.data.tables import read_table
from merlin.embeddings import Embeddings
from merlin.evaluation import encoder_tables
from merlin.evaluation.encoder_files import from_files
from merlin.files import write_csv
from merlin.run.notebook import unit
from merlin.vocabulary import plain_splits
from merlin.words import lines


def compare(
    paths: Sequence[Path],
    out: Path,
    *,
    names: Sequence[str] | None,
    site: str | None,
    labels: str | None,
    id_column: str,
    uncertain: str,
    shots: Sequence[int],
    draws: int,
    negatives: int,
    resamples: int,
    seed: int,
    overwrite: bool,
) -> int:
    """Read, judge, write and tell; returns the exit code: 1 if a file was refused."""
    target = out / "results.csv"
    refuse_existing(target, overwrite, ("label_efficiency.png", "paired.csv"))
    files, of, refused = _read(
        paths, names, dict(labels=labels, id_column=id_column, uncertain=uncertain)
    )
    table = from_files(files, names=of, site=site)
    refused |= table.refused
    for name, why in refused.items():
        sys.stderr.write(lines(f"merlin compare: {name} is refused: {why}") + "\n")
    found, paired = encoder_tables.compare(
        table.encoders, table.studies, shots=shots, n_draws=draws, negatives=negatives,
        n_resamples=resamples, seed=seed,
    )  # fmt: skip
    write_csv(target, found)
    write_csv(out / "paired.csv", paired)
    test = table.studies.rows("test")
    who = table.studies.patient_id[test]
    n, units = len(set(who)), unit(who, table.studies.study_id[test])
    tiers = sorted({str(e.meta.get("tier", "unknown")) for e in files.values()})
    facts = {
        "tier_note": f"tier: {', '.join(tiers)}",
        "n": {f"test {units}": n, "training studies": len(table.studies.rows("train"))},
        "interval": f"95% interval, {resamples:,} resamples of {units}, {draws} draws",
        "profile": "none",
        "seed": seed,
    }
    from merlin.figures.encoders import draw_encoders

    save_picture(out / "label_efficiency.png", draw_encoders, {"": found, "paired": paired}, facts)
    for name, notes in table.notes.items():
        for note in notes:
            say(f"{name}: {note}")
    _tell(found)
    say(
        f"Wrote {target} ({len(found)} rows, {n} test {units} in common), paired.csv and label_efficiency.png."
    )
    is_flat = found["reason"].str.startswith(encoder_tables.REFUSED)
    return 1 if refused or is_flat.any() else 0


def _tell(table: pd.DataFrame) -> None:
    """A line for each encoder: its macro AUROC under each budget."""
    for name, part in table[table["label"] == "macro"].groupby("model", sort=False):
        said = [
            f"{r.budget} {r.value:.3f} [{r.low:.3f}, {r.high:.3f}]"
            if r.status == "ok"
            else f"{r.budget} not evaluated ({r.reason})".strip()
            for r in part.itertuples()
        ]
        say(f"{name}: macro AUROC: {'; '.join(said)}")


def _read(
    paths: Sequence[Path], names: Sequence[str] | None, how: dict
) -> tuple[dict[str, Embeddings], list[str], dict[str, str]]:
    """Files by name, the encoder that each is of, and why others cannot be read.

    An encoder's name may stand more than once: for its trainings with other seeds.
    """
    named = list(names) if names else list(name_files(None, paths))
    if len(named) != len(paths):
        raise ValueError(f"--names: {len(named)} for {len(paths)} files; each needs one")
    found: dict[str, Embeddings] = {}
    refused: dict[str, str] = {}
    of = []
    for i, (name, path) in enumerate(zip(named, paths, strict=True)):
        again = named[:i].count(name)
        key = f"{name} ({again + 1})" if again else name
        try:
            if path.suffix.lower() != ".npz":
                raise ValueError(
                    f"{path.name}: expected .npz. Scores without vectors: merlin evaluate"
                )
            found[key] = _with_split(read_embeddings(path, how, []), how)
            of.append(name)
        except (OSError, ValueError) as error:
            refused[key] = str(error)
    if not found:
        said = "\n".join(f"  {n}: {why}" for n, why in refused.items())
        raise ValueError(f"no file can be read\n{said}")
    return found, of, refused


def _with_split(e: Embeddings, how: dict) -> Embeddings:
    """An embeddings file with the split and patients of the table of labels, where that has them."""
    if not how["labels"]:
        return e
    table = read_table(how["labels"], needed=(how["id_column"],))
    ids = read_ids(table[how["id_column"]], where=f"{how['labels']}, column {how['id_column']}")
    about = table.set_axis(ids)
    changed = {
        c: about[c].reindex(e.study_id).fillna("").str.strip().to_numpy(str)
        for c in ("split", "patient_id")
        if c in about
    }
    if "split" in changed:
        changed["split"], _ = plain_splits(changed["split"])
    if "patient_id" in changed:  # unknown ones are each a study's own
        blank = changed["patient_id"] == ""
        changed["patient_id"] = changed["patient_id"].astype(object)
        changed["patient_id"][blank] = e.patient_id[blank]
        changed["patient_id"] = changed["patient_id"].astype(str)
    notes = [f"{' and '.join(changed)} from --labels, not the file's own"] if changed else []
    return replace(e, **changed, meta=e.meta | {"notes": [*e.meta.get("notes", ()), *notes]})
