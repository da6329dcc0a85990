"""`merlin`: look at your own scans with a trained model, and judge embeddings of any model.

    merlin findings scan.nii.gz dicom_folder --out results
    merlin embed scans/ --out scans.npz
    merlin evaluate main.npz mine.npz probabilities.csv --out comparison
    merlin five-year runs/full/cohort/manifest.csv --weights five_year.safetensors --out five_year
    merlin release merlinabdominalctdataset --out my_cohort
    merlin phantom --layout merlin --out look_alike
    merlin hospital dicom_tree --reports reports.csv --key secret.txt --out cohort
    merlin verse verse_folder --grades grades.csv --out my_verse
    merlin totalsegmentator Totalsegmentator_dataset --out my_organs
    merlin weights official.pt --text-folder Clinical-Longformer --out weights.safetensors
    merlin check

Scans are NIfTI files or DICOM folders; a folder of NIfTI files, or of DICOM studies in folders of their
own, is all of them. What is assumed
about a scan, and what of a folder is not taken, is printed. A scan that cannot be read is reported at
the end and does not stop the others. A call that was interrupted goes on when it is repeated.

Exit codes: 0 all scans done, 1 some scans could not be read, 2 nothing could be done.
"""

import argparse
import io
import math
import sys
from dataclasses import replace
from pathlib import Path

from merlin.files import atomic, atomic_path
from merlin.words import lines


def parser():
    """The command line."""
    top = argparse.ArgumentParser(
        prog="merlin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, more in (
        (
            "findings",
            "score the 30 zero-shot findings on scans",
            "Writes findings.csv (presence minus absence similarity per finding; above 0 is called "
            "present) and one QC picture a scan, which shows what the model saw: look at it before "
            "you look at the scores.",
        ),
        ("embed", "turn scans into embeddings", "Writes an .npz file: see docs/embeddings.md."),
    ):
        command = commands.add_parser(name, help=text, description=more)
        command.add_argument(
            "paths", nargs="+", metavar="PATH", help="NIfTI file, DICOM folder, or folder of NIfTI"
        )
        command.add_argument(
            "--out",
            required=True,
            help="folder for the results" if name == "findings" else "file, as scans.npz",
        )
        command.add_argument(
            "--weights",
            help="weights.safetensors; default: the last run of the full profile, else default, else smoke",
        )
        command.add_argument(
            "--assume-hu",
            action="store_true",
            help="read a scan as HU whatever its values look like",
        )
        command.add_argument("--overwrite", action="store_true", help="replace results that exist")
    _evaluate_parser(commands)
    command = commands.add_parser(
        "five-year",
        help="judge a fine-tuned five-year model on a cohort's labels",
        description="Encodes the studies of a manifest that have five_year_ labels and writes "
        "results.csv (AUROC, AUPRC and Brier score with intervals over patients), predictions.csv, "
        "unreadable.csv and five_year.png. Nothing is trained. The model is the official five-year "
        "file as `merlin weights` converts it, or five_year/weights.safetensors of a run.",
    )
    command.add_argument(
        "manifest", metavar="MANIFEST", help="as 01_dataset or 01_cohort writes it"
    )
    command.add_argument("--weights", required=True)
    command.add_argument("--out", required=True, help="folder for the results")
    command.add_argument("--split", default="test")
    command.add_argument("--site", default="internal", help="'all' takes every site")
    command.add_argument("--cache", help="folder of cached volumes, as runs/full/cache")
    command.add_argument("--workers", type=int, default=2, help="processes that read volumes")
    command.add_argument("--min-events", type=int, default=5, help="events a disease needs")
    command.add_argument("--resamples", type=int, default=1000, help="of patients")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true", help="replace results that exist")
    command = commands.add_parser(
        "release",
        help="read the Merlin Abdominal CT Dataset into a manifest, with an audit",
        description="Reads the data release's folder and writes manifest.csv (the schema of "
        "data_manifests/README.md) and audit.csv: counts, how columns were matched, and everything "
        "odd with how it was taken. What is not understood and missing files are refused, all at once.",
    )
    command.add_argument("folder", metavar="FOLDER", help="merlinabdominalctdataset/")
    command.add_argument("--out", required=True, help="folder for manifest.csv and audit.csv")
    command.add_argument(
        "--patients", help="table of study id, patient id and, if known, date; the release has none"
    )
    command.add_argument(
        "--dates", choices=["ymd", "dmy", "mdy"], default="",
        help="order of day and month in that table, where its dates do not tell",
    )  # fmt: skip
    command.add_argument(
        "--column", nargs=2, action="append", default=[], metavar=("OURS", "THEIRS"),
        help="where a column has another name, as --column findings Text",
    )  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace results that exist")
    command = commands.add_parser(
        "phantom",
        help="write a phantom cohort in a data set's layout",
        description="Takes the internal cohort of a finished run and writes it in the layout of the "
        "Merlin Abdominal CT Dataset: a look-alike to try the full tier on. Volumes are linked, not "
        "copied, where the disk allows.",
    )
    command.add_argument("--layout", choices=["merlin"], required=True)
    command.add_argument("--out", required=True, help="a new folder")
    command.add_argument("--profile", default="smoke", help="whose cohort; default: smoke")
    command.add_argument("--studies", type=int, help="only the first so many")
    _more_commands(commands)
    return top


def _evaluate_parser(commands):
    command = commands.add_parser(
        "evaluate",
        help="judge embeddings files and tables of scores side by side",
        description="Zero-shot findings, phenotypes and retrieval on the studies that all files have "
        "in common, paired on the same patients. Writes results.csv, paired.csv and "
        "comparison.png. Any encoder enters as an .npz, any classifier as a table of probabilities or "
        "logits (.csv, .xlsx, .parquet): see docs/embeddings.md. Labels come from the first file that has "
        "them. A file that cannot be read is named and the others are judged. Exit code 1 if a file was "
        "refused, 2 if all were.",
    )
    command.add_argument(
        "paths",
        nargs="+",
        metavar="FILE",
        help=".npz, .csv, .xlsx or .parquet; the first is the reference",
    )
    command.add_argument("--out", required=True, help="folder for the results")
    command.add_argument("--names", nargs="+", help="of the models; default: the file names")
    command.add_argument("--site", help="only studies of this site")
    command.add_argument("--split", default="test", help="only this split; 'all' takes every study")
    command.add_argument(
        "--threshold", default="auto", metavar="T",
        help="above which a finding is called: a number (for tables of scores), or 'validation' "
        "(best F1 on split val); default: 0, and 0.5 for tables of probabilities",
    )  # fmt: skip
    command.add_argument("--labels", help="table of labels for the tables of scores, by study")
    command.add_argument("--id", default="study_id", help="column of the studies in tables")
    command.add_argument(
        "--uncertain", default="missing", choices=["missing", "positive", "negative", "refuse"],
        help="what a label of -1 means in tables; default: missing, and counted",
    )  # fmt: skip
    command.add_argument("--mask-nan", action="store_true", help="leave out scores that are NaN")
    command.add_argument("--pools", nargs="+", type=int, default=[32, 64, 128], metavar="N")
    command.add_argument("--min-positive", type=int, default=20, help="studies a phecode needs")
    command.add_argument("--resamples", type=int, default=1000, help="of patients")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true", help="replace results that exist")


def _more_commands(commands):
    command = commands.add_parser(
        "hospital",
        help="turn a DICOM tree, reports and codes into a de-identified cohort",
        description="Writes NIfTI volumes, manifest.csv, codes.csv, text_hits.csv and quarantine.csv. "
        "Ids are keyed hashes, dates are shifted by patient, no header text but the scanner's maker "
        "leaves. Series whose pixels may show text or a screen stay behind. "
        "A report that holds a name, number or birth date of any header of its study or of its "
        "table rows, or a name or number of any other, is withheld with its study, or has them replaced "
        "with --redact. Read text_hits.csv and the reports before you share anything: no program can "
        "promise that free text is safe.",
        epilog="What no scan can find: nicknames and translated names, a name in a script that no header "
        "uses, several wrong letters in a short name, a name that is a word at the head of a sentence, "
        "relatives and staff whom no header or column names, an illness or event that tells who it was. "
        "Columns of the tables whose names speak of persons (patient_name, radiologist, ...) are looked "
        "for, too.",
    )
    command.add_argument("folder", metavar="DICOM_TREE")
    command.add_argument(
        "--reports", required=True, help="CSV: accession, findings and perhaps impression"
    )
    command.add_argument(
        "--codes", help="CSV: patient_id, date, vocabulary, code and perhaps accession"
    )
    command.add_argument(
        "--key", required=True, help="file of the secret; made if absent; keep it outside --out"
    )
    command.add_argument("--out", required=True, help="a new folder")
    command.add_argument(
        "--dates", choices=["ymd", "dmy", "mdy"], default="",
        help="of the codes' dates, where the column itself cannot tell day from month",
    )  # fmt: skip
    command.add_argument(
        "--redact",
        action="store_true",
        help="replace what is found by <DELETED> instead of withholding",
    )
    command = commands.add_parser(
        "verse",
        help="read the VerSe dataset and its fracture grades into a manifest",
        description="Lists the scans of the unpacked VerSe parts (dataset-verse20test/ and its like) with "
        "a fracture label each: 1 if any vertebra's grade reaches --min-grade, empty without a grade. "
        "Patients that stand in several parts get one split. The grades are a table of one row a "
        "subject, columns named like vertebrae. See docs/full_tier.md.",
    )
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument(
        "--grades", required=True, help="table of subject and a grade per vertebra"
    )
    command.add_argument("--subject", default="subject", help="its column of subjects")
    command.add_argument("--min-grade", type=int, default=1, help="Genant's; default: 1")
    command.add_argument("--out", required=True, help="folder for manifest.csv")
    command.add_argument("--overwrite", action="store_true", help="replace a manifest that exists")
    command = commands.add_parser(
        "totalsegmentator",
        help="read the TotalSegmentator dataset into a manifest with label maps",
        description="Joins each scan's masks into one label map of our 20 structures and writes "
        "manifest.csv, with the dataset's own splits, and excluded.csv. A call that was interrupted "
        "resumes. See docs/full_tier.md.",
    )
    command.add_argument("folder", metavar="FOLDER", help="that holds meta.csv")
    command.add_argument("--out", required=True, help="folder for manifest.csv and label_maps/")
    command.add_argument(
        "--min-structures", type=int, default=10, help="a scan holds at least so many; default: 10"
    )
    command.add_argument("--workers", type=int, default=2, help="processes; default: 2")
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a manifest that exists; label maps whose masks are unchanged stay",
    )
    command = commands.add_parser(
        "weights",
        help="turn an official checkpoint into safetensors, or weights of ours back",
        description="An official .pt is read without running any code in it, checked tensor by tensor, "
        "and written as safetensors: the contrastive one as weights that every notebook reads, the "
        "five-year one for `merlin five-year`, the report one for "
        "merlin.training.official. Weights of ours are copied as they are, or (also "
        "those of 08_five_year and 09_report_generation) written in the official layout with "
        "--export. hub:KIND fetches a released file (KIND is "
        "contrastive, five-year or report); that needs --revision and --sha256, as the hub shows them.",
    )
    command.add_argument(
        "path", metavar="FILE", help=".pt, weights.safetensors, or hub:contrastive"
    )
    command.add_argument("--out", required=True)
    command.add_argument("--text-folder", default="", help="local copy of Clinical-Longformer")
    command.add_argument("--phecodes", help="CSV of phecode and name in the order of the outputs")
    command.add_argument("--export", action="store_true", help="to the official layout")
    command.add_argument("--lm-folder", help="of a report model's language model")
    command.add_argument("--revision", default="", help="commit of the hub's repository")
    command.add_argument("--sha256", default="", help="of the file, to be checked")
    command.add_argument("--hub-cache", default="hub_cache", help="folder for fetched files")
    command.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    command = commands.add_parser(
        "check",
        help="hold this machine's results to known ones, stage by stage",
        description="One phantom scan through rendering, preprocessing, encoding, scoring and reading, "
        "against committed values with tolerances. Exit code 1 if anything differs.",
    )
    command.add_argument(
        "--ct",
        nargs="+",
        default=[],
        help="known real scans to check too; the message without it names one",
    )
    command.add_argument("--write", action="store_true", help=argparse.SUPPRESS)


def main(argv=None):
    """Run the command line; returns the exit code."""
    args = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a sign loses no result
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return COMMANDS.get(args.command, _run)(args)
    except (OSError, ValueError) as error:
        sys.stderr.write(lines(f"merlin {args.command}: {error}") + "\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\nmerlin {args.command}: interrupted\n")
        return 130


def _say(text):
    sys.stdout.write(lines(text) + "\n")


def _refuse_existing(target, overwrite, beside=()):
    """Refuse to replace what a call will write: its table, and what comes `beside` it."""
    there = [p for p in (target, *(target.with_name(n) for n in beside)) if p.exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{there[0]} exists. Choose another --out, or pass --overwrite to replace it."
        )


def _run(args):
    from merlin import own_scans

    out = Path(args.out)
    is_table, pictures = args.command == "findings", (p.name for p in out.glob("scan_*.png"))
    _refuse_existing(
        out / "findings.csv" if is_table else out, args.overwrite, pictures if is_table else ()
    )
    if args.command == "embed" and out.suffix != ".npz":
        raise ValueError(f"--out {out}: expected a file name that ends in .npz")
    weights = Path(args.weights) if args.weights else _last_weights()
    if not weights.is_file():
        raise FileNotFoundError(
            f"no weights at {weights}. Give a weights.safetensors, or run make figures."
        )
    how = dict(assume_hu=args.assume_hu, overwrite=args.overwrite)
    return own_scans.run(args.command, args.paths, out, weights, **how)


def _release(args):
    from merlin.data.manifest import linked
    from merlin.readers.release import read_release
    from merlin.run import write_csv

    out = Path(args.out)
    target = out / "manifest.csv"
    _refuse_existing(target, args.overwrite, ("audit.csv", "odd.csv", "left_out.csv"))
    found = read_release(
        args.folder, columns=dict(args.column), patients=args.patients, dates=args.dates
    )
    write_csv(out / "audit.csv", found.audit)
    write_csv(out / "odd.csv", found.odd)
    write_csv(out / "left_out.csv", found.lost)
    write_csv(target, linked(found.manifest, args.folder, out))
    for row in found.audit.itertuples():
        _say(f"{row.n:>8,}  {row.what}{f' ({row.detail})' if row.detail else ''}")
    _say(f"Wrote {target}, audit.csv, odd.csv and left_out.csv.")
    return 0


def _verse(args):
    from merlin.data.manifest import linked
    from merlin.readers.verse import FRACTURE, read_folder
    from merlin.run import write_csv

    target = Path(args.out) / "manifest.csv"
    _refuse_existing(target, args.overwrite)
    found = read_folder(
        args.folder, args.grades, out=args.out, subject=args.subject, min_grade=args.min_grade
    )
    write_csv(target, linked(found.manifest, args.folder, args.out))
    n = found.manifest[FRACTURE].value_counts()
    for note in found.notes:
        _say(note)
    _say(
        f"grades in {', '.join(found.grades)}; not taken: {', '.join(found.ignored) or 'none'}\n"
        f"Wrote {target}: {len(found.manifest)} scans, {n.get('1', 0)} with a fracture, "
        f"{n.get('0', 0)} without, {found.n_ungraded} without a grade."
    )
    return 0


def _totalsegmentator(args):
    import pandas as pd

    from merlin.data.manifest import linked
    from merlin.readers import totalsegmentator
    from merlin.run import write_csv

    out = Path(args.out)
    target = out / "manifest.csv"
    _refuse_existing(target, args.overwrite, ("excluded.csv",))
    scans, incomplete = totalsegmentator.read_folder(args.folder)
    manifest, unfit = totalsegmentator.write_label_maps(
        scans, out, min_structures=args.min_structures, n_workers=args.workers
    )
    excluded = pd.concat([incomplete, unfit], ignore_index=True)
    if manifest.empty:
        reasons = excluded["reason"].value_counts()
        said = "".join(f"\n  {n} of them: {reason}" for reason, n in reasons.head(5).items())
        raise ValueError(f"none of the {len(excluded)} scans can be used{said}")
    write_csv(out / "excluded.csv", excluded)
    write_csv(target, linked(manifest, args.folder, out))
    n = manifest["split"].value_counts()
    _say(
        f"Wrote {target}: {', '.join(f'{n.get(s, 0)} {s}' for s in ('train', 'val', 'test'))}; "
        f"{len(excluded)} scans not taken (excluded.csv)."
    )
    return 0


def _phantom(args):
    from merlin.data.manifest import load_manifest
    from merlin.readers.release import write_release
    from merlin.run import ROOT, upstream

    path = upstream(ROOT / "runs" / args.profile / "cohort" / "manifest.csv", "01_cohort")
    table = load_manifest(path)
    table = table[table["site"] == "internal"].reset_index(drop=True)
    if args.studies:
        table = table.head(args.studies)
    folder = write_release(table, args.out)
    _say(
        f"Wrote {len(table)} synthetic studies to {folder}, and {folder.name}-patients.csv beside it."
    )
    return 0


def _hospital(args):
    import pandas as pd

    from merlin.data.codes import read_codes
    from merlin.data.tables import read_table
    from merlin.readers import hospital
    from merlin.run import write_csv

    out = Path(args.out)
    reports = read_table(args.reports, needed=hospital.REPORT_COLUMNS)
    codes = None
    if args.codes:
        codes = read_codes(args.codes, owner="patient_id", dates=args.dates)
    for table, name in ((reports, "reports"), (codes, "codes")):
        for note in () if table is None else table.attrs["notes"]:
            _say(f"{name}: {note}")
    key = hospital.read_key(args.key, out)
    begun, mark = out / "UNFINISHED", _hospital_mark(args, key)
    others = [p for p in out.iterdir() if p != begun] if out.exists() else []
    is_ours = begun.is_file() and not begun.is_symlink() and begun.read_text() == mark
    if begun.is_symlink() or (others and not is_ours):
        raise FileExistsError(
            f"{out} is not empty, and no interrupted call on the same files with this key left it so. "
            "Choose a new --out."
        )
    with atomic(begun) as stream:
        stream.write(mark)
    made = hospital.deidentify(
        args.folder, reports, codes, key=key, out=out, redacts=args.redact, save=_save_volume
    )
    for name in ("manifest", "codes", "text_hits", "quarantine"):
        write_csv(out / f"{name}.csv", getattr(made, name))
    for path in (out / "volumes").glob("*"):  # of studies that an interrupted call had taken
        if path.name.removesuffix(".nii.gz") not in set(made.manifest.get("study_id", ())):
            path.unlink()
    begun.unlink()
    _say(
        f"{len(made.manifest)} studies of {made.manifest.get('patient_id', pd.Series()).nunique()} "
        f"patients in {out / 'manifest.csv'}; {len(made.quarantine)} left out (quarantine.csv)."
    )
    if made.n_unreported or made.n_unused:
        _say(
            f"{made.n_unreported} studies have no report, {made.n_unused} reports no study: are accession "
            "numbers spelled alike in both?"
        )
    for note in made.notes:
        _say(f"{note}")
    for kind, n in made.text_hits.groupby("kind")["n"].sum().items():
        _say(f"{n:>8,}  {kind} in free text (text_hits.csv)")
    _say(
        "Read the reports before you share them: no program can promise they are safe. Nicknames, names in "
        "a script that no header uses, garbled short names, people whom no header or column names and what "
        "only one person can have had are not found."
    )
    return 1 if len(made.quarantine) else 0


def _hospital_mark(args, key):
    """A keyed hash of all that a call reads: only the same call may go on where one stopped."""
    import json

    from merlin.data.tree import walk
    from merlin.readers import hospital
    from merlin.run import file_hash

    tables = [file_hash(p) for p in (args.reports, args.codes) if p]
    tree = walk(Path(args.folder).resolve()).files
    files = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in tree]
    return hospital.hashed(key, "call", json.dumps([args.redact, args.dates, tables, files]))


def _save_volume(path, volume):
    import nibabel as nib

    image = nib.Nifti1Image(volume.hu, volume.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as part:
        nib.save(image, part)


def _weights(args):
    import shutil

    from merlin.training import checkpoint, official

    out = Path(args.out)
    _refuse_existing(out, args.overwrite)
    if out.resolve().is_relative_to(Path(__file__).parent):
        raise ValueError(f"{out} lies inside the package; choose another folder")
    path = Path(args.path)
    if args.path.startswith("hub:"):
        kind = args.path.removeprefix("hub:")
        if kind not in official.FILES:
            raise ValueError(f"{args.path}: expected hub: and one of {', '.join(official.FILES)}")
        path = official.download(kind, args.hub_cache, revision=args.revision, sha256=args.sha256)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if args.export:
        kind = official.export(path, out, lm_folder=args.lm_folder or None)
        said = f"written in the layout of the official {kind} file"
    elif path.suffix == ".safetensors":
        checkpoint.read_facts(path)  # is it one of ours?
        with atomic_path(out) as part:
            shutil.copyfile(path, part)
        checkpoint.link_text_folder(out, checkpoint.text_folder(path))
        said = "copied: these are weights of ours"
    else:
        names = None
        if args.phecodes:
            from merlin.phantom.ehr import read_phenotypes

            names = read_phenotypes(args.phecodes)["phecode"]
        folder = str(Path(args.text_folder).resolve()) if args.text_folder else ""
        said = official.convert(path, out, text_folder=folder, phecodes=names)
    _say(f"{path.name}: {said}. Wrote {out}.")
    return 0


def _check(args):
    from merlin import check

    return check.main(args.ct, args.write)


def _evaluate(args):
    from merlin.run import write_csv

    out = Path(args.out)
    target = out / "results.csv"
    _refuse_existing(target, args.overwrite, ("comparison.png", "paired.csv"))
    paths = [Path(p) for p in args.paths]
    names = args.names or _distinct_names(paths)
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise ValueError(f"--names: {len(names)} for {len(paths)} files; each needs one of its own")
    if min(args.pools) < 2:
        raise ValueError(f"--pools {min(args.pools)}: a pool holds two candidates or more")
    if min(args.resamples, args.min_positive) < 1:
        raise ValueError("--resamples and --min-positive: expected 1 or more")
    rules = {"auto": None, "validation": float("nan")}
    try:
        threshold = rules[args.threshold] if args.threshold in rules else float(args.threshold)
    except ValueError:
        raise ValueError(f"--threshold {args.threshold}: a number, or validation") from None
    if args.threshold not in rules and not math.isfinite(threshold):
        raise ValueError(f"--threshold {args.threshold}: expected a finite number, or validation")
    if args.id != "study_id" and not args.labels and not any(map(_is_table, paths)):
        raise ValueError(f"--id {args.id} names a column of a table; there is none")
    files, refused = _read_all(names, paths, args, threshold)
    if not files:
        raise ValueError("no file can be judged\n" + "\n".join(refused))
    for text in refused:
        sys.stderr.write(lines(f"merlin evaluate: {text}") + "\n")

    from merlin.evaluation import off_shelf
    from merlin.vocabulary import SPLIT_NAMES

    split = None if args.split == "all" else args.split
    if split and not any(
        (e.split == split).any() for e in files.values()
    ):  # files call it as we do
        split = SPLIT_NAMES.get(split.lower(), split.lower())
    options = dict(site=args.site, split=split, pools=args.pools, min_positive=args.min_positive)
    options |= dict(threshold="validation" if args.threshold == "validation" else None)
    table, paired = off_shelf.evaluate(files, **options, n_resamples=args.resamples, seed=args.seed)
    if not table["status"].eq("ok").any():
        said = dict.fromkeys(f"  {r.model}: {r.task}: {r.reason}" for r in table.itertuples())
        raise ValueError("nothing can be judged\n" + "\n".join(said))
    write_csv(target, table)
    write_csv(out / "paired.csv", paired)
    _draw_comparison(table, files, args, out)
    _tell(table, files)
    n, units = len(table), int(table["n_patients"].max())
    _say(f"Wrote {target} ({n} rows, {units} {_unit(files)} in common) and comparison.png.")
    failed = table["reason"].str.startswith(off_shelf.REFUSED)
    return 1 if refused or failed.any() else 0


def _is_table(path):
    from merlin.evaluation.scores import SUFFIXES

    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def _read_all(names, paths, args, threshold):
    """Files by name, and why others cannot be read; tables without labels know what another file labels."""
    files, refused = {}, {}
    for again in (False, True):
        judged = next((e.finding for e in files.values() if len(e.finding)), ())
        for name, path in zip(names, paths, strict=True):
            if again and not (len(judged) and (name in refused or not len(files[name].finding))):
                continue
            try:
                files[name] = _read_judged(path, args, threshold, judged)
                refused.pop(name, None)
            except Exception as error:  # noqa: BLE001 - one file's fault must not cost the others
                files.pop(name, None)
                known = isinstance(error, ValueError | OSError)
                kind = "" if known else f"{type(error).__name__}: "
                refused[name] = f"{name} is refused: {kind}{error}"
    return {n: files[n] for n in names if n in files}, [refused[n] for n in names if n in refused]


def _read_judged(path, args, threshold, judged):
    """An embeddings file, or a table of scores."""
    from merlin.embeddings import load_embeddings
    from merlin.evaluation import scores

    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    if _is_table(path):
        options = dict(uncertain=args.uncertain, mask_nan=args.mask_nan, threshold=threshold)
        options |= dict(labels=args.labels, id_column=args.id, judged=judged)
        return scores.read_scores(path, **options)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path.name}: expected .npz, or a table ({', '.join(scores.SUFFIXES)})")
    e, notes = load_embeddings(path), []
    if args.labels:
        asked = dict(id_column=args.id, uncertain=args.uncertain)
        finding, labels, notes = scores.read_labels(
            args.labels, e.study_id, e.prompt_finding, **asked
        )
        e = replace(e, finding=finding, finding_labels=labels)
        notes = [*notes, "labels from --labels, not the file's own"]
    if args.threshold not in ("auto", "validation"):
        notes = [*notes, f"--threshold {args.threshold} is for tables of scores; not used here"]
    return replace(e, meta=e.meta | {"notes": [*e.meta.get("notes", ()), *notes]})


MEANT = {"f1": "f1 (of the positive class, macro over findings)",
         "f1_balanced": "f1_balanced (of the positive class, on class-balanced draws, macro)"}  # fmt: skip


def _tell(table, files):
    """Print what reading changed, and one line for each macro value; no remark twice."""
    told = {name: set(e.meta.get("notes", ())) for name, e in files.items()}
    for name, e in files.items():
        for note in e.meta.get("notes", ()):
            _say(f"{name}: {note}")
    for row in table[table["label"].eq("macro") | table["metric"].eq("recall")].itertuples():
        said = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"]
        if row.status != "ok":
            said = ["not evaluated"]
        said += [t for t in row.reason.split("; ") if t and t not in told[row.model]]
        told[row.model] |= set(said[1:])
        metric = MEANT.get(row.metric, row.metric)
        _say(f"{row.model}: {row.task}, {metric}: {'; '.join(said)}")


def _unit(files):
    """`patients`, or `studies` where the files name no patient."""
    from merlin.run import unit

    first = next(iter(files.values()))
    return unit(first.patient_id, first.study_id)


def _five_year(args):
    import numpy as np
    import pandas as pd
    import torch

    from merlin.data.manifest import load_manifest
    from merlin.data.preprocess import Grid, load_input
    from merlin.evaluation import five_year
    from merlin.model.cpu import prepare_cpu
    from merlin.readers import survey
    from merlin.run import write_csv
    from merlin.training import diseases, official

    out = Path(args.out)
    target = out / "results.csv"
    _refuse_existing(target, args.overwrite, ("five_year.png", "predictions.csv", "unreadable.csv"))
    model, names, facts = official.load_five_year(args.weights)
    studies = load_manifest(args.manifest)
    missing = [f"five_year_{n}" for n in names if f"five_year_{n}" not in studies]
    if missing:
        raise ValueError(f"{args.manifest}: no column {', '.join(missing)}; nothing to judge by")
    columns = [f"five_year_{n}" for n in names]
    studies = studies[studies["split"] == args.split]
    if "site" in studies and args.site != "all":
        sites = studies["site"].fillna("internal")
        n_elsewhere = int((sites != args.site).sum())
        if n_elsewhere == len(studies) > 0:
            found = ", ".join(sorted(set(sites)))
            raise ValueError(
                f"{args.manifest}: no site {args.site}; found {found}. Name one, or all."
            )
        if n_elsewhere:
            _say(f"{n_elsewhere} studies of other sites than {args.site} sit out.")
        studies = studies[sites == args.site]
    flow = five_year.flow(studies, names)
    labels = five_year.labels_from_codes(studies[columns])
    studies = studies[~np.isnan(labels).all(1)].reset_index(drop=True)
    if studies.empty:
        raise ValueError(
            f"{args.manifest}: no study of split {args.split} at site {args.site} has a label 0 or 1"
        )
    shape = facts["grid"]
    grid = Grid(tuple(shape["spacing_mm"]), tuple(shape["shape"]), tuple(shape["hu_window"]))
    cache = Path(args.cache or out / "cache")
    seen = survey.survey(studies, grid, cache_dir=cache, n_workers=args.workers)
    bad = seen[seen["status"] == "quarantined"]
    studies = studies[~studies["study_id"].isin(bad["study_id"])].reset_index(drop=True)
    if studies.empty:
        raise ValueError(
            f"none of {len(bad)} volumes can be read; the first: {bad.iloc[0]['reason']}"
        )
    prepare_cpu()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    read = lambda i: load_input(studies["volume"][int(i)], grid, cache_dir=cache).image  # noqa: E731
    batch = lambda index: torch.from_numpy(np.stack([read(i) for i in index]))[:, None]  # noqa: E731
    p = diseases.predict(model.to(device), batch, len(studies), device=device, desc="studies")
    labels = five_year.labels_from_codes(studies[columns])
    who = studies["patient_id"].to_numpy(str)
    options = dict(min_events=args.min_events, n_resamples=args.resamples, seed=args.seed)
    table, _ = five_year.evaluate(
        p, labels, who, names, model=Path(args.weights).stem, split=args.split, **options
    )
    ids = studies[["study_id", "patient_id"]]
    write_csv(target, table)
    write_csv(out / "predictions.csv", pd.concat([ids, pd.DataFrame(p, columns=names)], axis=1))
    write_csv(out / "unreadable.csv", bad[["study_id", "reason"]])
    bins = five_year.reliability(p.ravel(), labels.ravel()).assign(start="merlin")
    _draw_five_year({"": table, "flow": flow, "reliability": bins}, args, facts, studies, len(bad))
    for row in table[table["metric"] == "auroc"].itertuples():
        said = (
            f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}], {row.n_positive} of {row.n_studies}"
        )
        _say(f"{row.label}: AUROC {said if row.status == 'ok' else row.reason}")
    _say(
        f"Wrote {target} ({len(studies)} studies, {len(bad)} could not be read) and five_year.png."
    )
    return 1 if len(bad) else 0


def _draw_five_year(tables, args, facts, studies, n_bad):
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcdefaults()  # whatever a matplotlibrc in the current folder says
    from merlin import run
    from merlin.figures import adapted, style

    who = studies["patient_id"].to_numpy(str), studies["study_id"].to_numpy(str)
    note = f"weights of the {facts['tier']} tier"
    if (Path(args.manifest).parent / run.SYNTHETIC).exists():
        note += f" on a {run.TIER_NOTES['phantom']}"
    elif facts["tier"] == "phantom":
        note += ", trained on synthetic phantoms: not a clinical result"
    sidecar = {
        "tier_note": note,
        "n": run.counts(*who, "studies") | ({"unreadable": n_bad} if n_bad else {}),
        "interval": f"95% percentile interval, {args.resamples:,} resamples of {run.unit(*who)}",
        "profile": facts["profile"],
        "seed": args.seed,
        "split": args.split,
        "site": args.site,
    }
    with mpl.rc_context(style.RC):
        figure = style.drawn(adapted.draw_given_five_year, tables, sidecar)
        with atomic_path(Path(args.out) / "five_year.png") as part:
            figure.savefig(part, dpi=200)


def _distinct_names(paths):
    stems = [p.stem for p in paths]
    return stems if len(set(stems)) == len(stems) else [str(p.with_suffix("")) for p in paths]


def _draw_comparison(table, files, args, out):
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcdefaults()  # whatever a matplotlibrc in the current folder says
    import matplotlib.pyplot as plt

    from merlin.figures import off_shelf, style

    tiers = sorted({str(e.meta.get("tier", "unknown")) for e in files.values()})
    facts = {
        "tier_note": f"tier: {', '.join(tiers)}",
        "n": {_unit(files): int(table["n_patients"].max())},
        "interval": f"95% percentile interval, {args.resamples:,} resamples of {_unit(files)}",
        "profile": "none",
        "seed": args.seed,
        "pool": 64 if 64 in args.pools else args.pools[0],
    }
    with mpl.rc_context(style.RC):
        figure = style.drawn(off_shelf.draw_comparison, {"": table}, facts)
        with atomic_path(out / "comparison.png") as part:
            figure.savefig(part, dpi=200)
        plt.close(figure)


def _last_weights():
    from merlin.run import ROOT

    for profile in ("full", "default", "smoke"):
        path = ROOT / "runs" / profile / "pretraining" / "main" / "weights.safetensors"
        if path.exists():
            return path
    raise FileNotFoundError(
        "no trained weights in runs/. Run `make figures PROFILE=smoke` (minutes), or give --weights."
    )


COMMANDS = {
    "evaluate": _evaluate,
    "five-year": _five_year,
    "release": _release,
    "phantom": _phantom,
    "verse": _verse,
    "totalsegmentator": _totalsegmentator,
    "hospital": _hospital,
    "weights": _weights,
    "check": _check,
}


if __name__ == "__main__":
    sys.exit(main())
