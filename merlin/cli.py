"""`merlin`: look at your own scans with a trained model, and judge embeddings of any model.

```
merlin findings scan.nii.gz dicom_folder --out results
merlin embed scans/ --out scans.npz
merlin evaluate main.npz mine.npz probabilities.csv --out comparison
merlin five-year runs/full/cohort/manifest.csv --weights five_year.safetensors --out five_year
merlin release merlinabdominalctdataset --out my_cohort
merlin phantom --patients 100 --seed 1 --out phantoms
merlin phantom --layout merlin --out look_alike
merlin hospital dicom_tree --reports reports.csv --key secret.txt --out cohort
merlin verse verse_folder --grades grades.csv --out my_verse
merlin totalsegmentator Totalsegmentator_dataset --out my_organs
merlin weights official.pt --text-folder Clinical-Longformer --out weights.safetensors
merlin check
```

Scans are NIfTI files or DICOM folders; a folder of NIfTI files, or of DICOM studies in folders of their
own, is all of them. What is assumed about a scan, and what of a folder is not taken, is printed. A scan
that cannot be read is reported at the end and does not stop the others. A call that was interrupted goes
on when it is repeated.

Exit codes: 0 all scans done, 1 some scans could not be read, 2 nothing could be done.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from merlin.commands import data_sets
from merlin.commands.options import Flag, Hu, Overwrite, Resamples, Scans, Weights
from merlin.words import lines

# No flag has a --no-flag; an option takes the words up to the next one; of one value, the last counts.
app = App(
    name="merlin",
    help=__doc__,
    help_format="markdown",
    version_flags=[],
    default_parameter=Parameter(negative=(), consume_multiple=True, allow_repeating=True),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a sign loses no result
        sys.stdout.reconfigure(errors="backslashreplace")
    called = f"merlin {words[0]}" if words and words[0] in app else "merlin"
    try:
        code = app(words)
    except CycloptsError as error:
        sys.stderr.write(lines(f"{called}: {error}\n{called} --help lists what it takes.") + "\n")
        return 2
    except (OSError, ValueError) as error:
        sys.stderr.write(lines(f"{called}: {error}") + "\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{called}: interrupted\n")
        return 130
    if code is None:  # help was shown, because it was asked for or because nothing was
        sys.exit(0 if words else 2)
    return code


@app.command
def findings(
    paths: Scans,
    /,
    *,
    out: Path,
    weights: Weights = None,
    assume_hu: Hu = False,
    overwrite: Overwrite = False,
) -> int:
    """Score the 30 zero-shot findings on scans.

    Writes findings.csv (presence minus absence similarity per finding; above 0 is called present), one
    QC picture a scan, which shows what the model saw, and findings.html, a page with both: look at the
    picture before you look at the scores.

    Parameters
    ----------
    out
        Folder for the results.
    """
    from merlin.commands.scans import start

    return start("findings", paths, out, weights, assume_hu=assume_hu, overwrite=overwrite)


@app.command
def embed(
    paths: Scans,
    /,
    *,
    out: Path,
    weights: Weights = None,
    assume_hu: Hu = False,
    overwrite: Overwrite = False,
) -> int:
    """Turn scans into embeddings.

    Writes an .npz file: see docs/embeddings.md.

    Parameters
    ----------
    out
        File, as scans.npz.
    """
    from merlin.commands.scans import start

    return start("embed", paths, out, weights, assume_hu=assume_hu, overwrite=overwrite)


@app.command
def evaluate(
    paths: list[Path],
    /,
    *,
    out: Path,
    names: list[str] | None = None,
    site: str | None = None,
    split: str = "test",
    threshold: str = "auto",
    labels: str | None = None,
    id_column: Annotated[str, Parameter("--id")] = "study_id",
    uncertain: Literal["missing", "positive", "negative", "refuse"] = "missing",
    mask_nan: Flag = False,
    pools: tuple[int, ...] = (32, 64, 128),
    min_positive: int = 20,
    resamples: Resamples = 1000,
    seed: int = 0,
    overwrite: Overwrite = False,
) -> int:
    """Judge embeddings files and tables of scores side by side.

    Zero-shot findings, phenotypes and retrieval on the studies that all files have in common, paired on
    the same patients. Writes results.csv, paired.csv and comparison.png. Any encoder enters as an .npz,
    any classifier as a table of probabilities or logits (.csv, .xlsx, .parquet): see docs/embeddings.md.
    Labels come from the first file that has them. A file that cannot be read is named and the others are
    judged. Exit code 1 if a file was refused, 2 if all were.

    Parameters
    ----------
    paths
        Files: .npz, .csv, .xlsx or .parquet; the first is the reference.
    out
        Folder for the results.
    names
        Of the models; default: the file names.
    site
        Only studies of this site.
    split
        Only this split; 'all' takes every study.
    threshold
        Above which a finding is called: a number (for tables of scores), or 'validation' (best F1 on
        split val); default: 0, and 0.5 for tables of probabilities.
    labels
        Table of labels for the tables of scores, by study.
    id_column
        Column of the studies in tables.
    uncertain
        What a label of -1 means in tables; default: missing, and counted.
    mask_nan
        Leave out scores that are NaN.
    pools
        Candidates that retrieval ranks.
    min_positive
        Studies a phecode needs.
    """
    from merlin.commands import evaluate as command

    return command.evaluate(
        paths,
        out,
        names=names,
        site=site,
        split=split,
        threshold=threshold,
        labels=labels,
        id_column=id_column,
        uncertain=uncertain,
        mask_nan=mask_nan,
        pools=pools,
        min_positive=min_positive,
        resamples=resamples,
        seed=seed,
        overwrite=overwrite,
    )


@app.command
def five_year(
    manifest: str,
    /,
    *,
    weights: str,
    out: Path,
    split: str = "test",
    site: str = "internal",
    cache: str | None = None,
    workers: int = 2,
    min_events: int = 5,
    resamples: Resamples = 1000,
    seed: int = 0,
    overwrite: Overwrite = False,
) -> int:
    """Judge a fine-tuned five-year model on a cohort's labels.

    Encodes the studies of a manifest that have five_year_ labels and writes results.csv (AUROC, AUPRC
    and Brier score with intervals over patients), predictions.csv, unreadable.csv and five_year.png.
    Nothing is trained. The model is the official five-year file as `merlin weights` converts it, or
    five_year/weights.safetensors of a run.

    Parameters
    ----------
    manifest
        As 01_dataset or 01_cohort writes it.
    out
        Folder for the results.
    site
        'all' takes every site.
    cache
        Folder of cached volumes, as runs/full/cache.
    workers
        Processes that read volumes.
    min_events
        Events a disease needs.
    """
    from merlin.commands.five_year import judge

    return judge(
        manifest,
        out,
        weights=weights,
        split=split,
        site=site,
        cache=cache,
        workers=workers,
        min_events=min_events,
        resamples=resamples,
        seed=seed,
        overwrite=overwrite,
    )


for command in (
    data_sets.release,
    data_sets.phantom,
    data_sets.hospital,
    data_sets.verse,
    data_sets.totalsegmentator,
):
    app.command(command)


@app.command
def weights(
    path: str,
    /,
    *,
    out: Path,
    text_folder: str = "",
    phecodes: str | None = None,
    export: Flag = False,
    lm_folder: str | None = None,
    revision: str = "",
    sha256: str = "",
    hub_cache: str = "hub_cache",
    overwrite: Overwrite = False,
) -> int:
    """Turn an official checkpoint into safetensors, or weights of ours back.

    An official .pt is read without running any code in it, checked tensor by tensor, and written as
    safetensors: the contrastive one as weights that every notebook reads, the five-year one for
    `merlin five-year`, the report one for merlin.training.official. Weights of ours are copied as they
    are, or (also those of 08_five_year and 09_report_generation) written in the official layout with
    --export. hub:KIND fetches a released file (KIND is contrastive, five-year or report); that needs
    --revision and --sha256, as the hub shows them.

    Parameters
    ----------
    path
        A .pt file, weights.safetensors, or hub:contrastive.
    text_folder
        Local copy of Clinical-Longformer.
    phecodes
        CSV of phecode and name in the order of the outputs.
    export
        To the official layout.
    lm_folder
        Of a report model's language model.
    revision
        Commit of the hub's repository.
    sha256
        Of the file, to be checked.
    hub_cache
        Folder for fetched files.
    """
    from merlin.commands.weights import convert

    return convert(
        path,
        out,
        text_folder=text_folder,
        phecodes=phecodes,
        export=export,
        lm_folder=lm_folder,
        revision=revision,
        sha256=sha256,
        hub_cache=hub_cache,
        overwrite=overwrite,
    )


@app.command
def check(
    *,
    ct: list[str] | None = None,
    write: Annotated[bool, Parameter(show=False)] = False,
) -> int:
    """Hold this machine's results to known ones, stage by stage.

    One phantom scan through rendering, preprocessing, encoding, scoring and reading, against committed
    values with tolerances. Exit code 1 if anything differs.

    Parameters
    ----------
    ct
        Known real scans to check too; the message without it names one.
    """
    from merlin.commands import check as command

    return command.main(ct or (), write)


if __name__ == "__main__":
    sys.exit(main())
