"""`merlin release`, `verse`, `totalsegmentator`, `hospital` and `phantom`: folders of studies into others.

Each reads a data set's layout and writes a manifest with what else a cohort's folder holds.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import pandas as pd

from merlin.commands.out import refuse_existing, say
from merlin.data.codes import read_codes
from merlin.data.manifest import linked, load_manifest
from merlin.data.scan import Volume
from merlin.data.tables import read_table
from merlin.data.tree import walk
from merlin.files import atomic_path, file_hash, write_csv, write_text
from merlin.phantom import cohort, synthesis
from merlin.readers import hospital as hospitals
from merlin.readers import look_alike
from merlin.readers import release as releases
from merlin.readers import totalsegmentator as organs
from merlin.readers import verse as fractures
from merlin.run import places


def release(
    folder: str,
    out: Path,
    *,
    columns: Mapping[str, str],
    patients: str | None,
    dates: str,
    overwrite: bool,
) -> int:
    """The Merlin Abdominal CT Dataset as a manifest, with an audit."""
    target = out / "manifest.csv"
    refuse_existing(target, overwrite, ("audit.csv", "odd.csv", "left_out.csv"))
    found = releases.read_release(folder, columns=columns, patients=patients, dates=dates)
    write_csv(out / "audit.csv", found.audit)
    write_csv(out / "odd.csv", found.odd)
    write_csv(out / "left_out.csv", found.lost)
    write_csv(target, linked(found.manifest, folder, out))
    for row in found.audit.itertuples():
        say(f"{row.n:>8,}  {row.what}{f' ({row.detail})' if row.detail else ''}")
    say(f"Wrote {target}, audit.csv, odd.csv and left_out.csv.")
    return 0


def verse(
    folder: str, out: str, *, grades: str, subject: str, min_grade: int, overwrite: bool
) -> int:
    """The VerSe dataset and its fracture grades as a manifest."""
    target = Path(out) / "manifest.csv"
    refuse_existing(target, overwrite)
    found = fractures.read_folder(folder, grades, out=out, subject=subject, min_grade=min_grade)
    write_csv(target, linked(found.manifest, folder, out))
    n = found.manifest[fractures.FRACTURE].value_counts()
    for note in found.notes:
        say(note)
    say(
        f"grades in {', '.join(found.grades)}; not taken: {', '.join(found.ignored) or 'none'}\n"
        f"Wrote {target}: {len(found.manifest)} scans, {n.get('1', 0)} with a fracture, "
        f"{n.get('0', 0)} without, {found.n_ungraded} without a grade."
    )
    return 0


def totalsegmentator(
    folder: str, out: Path, *, min_structures: int, workers: int, overwrite: bool
) -> int:
    """The TotalSegmentator dataset as a manifest with label maps."""
    target = out / "manifest.csv"
    refuse_existing(target, overwrite, ("excluded.csv",))
    scans, incomplete = organs.read_folder(folder)
    manifest, unfit = organs.write_label_maps(
        scans, out, min_structures=min_structures, n_workers=workers
    )
    excluded = pd.concat([incomplete, unfit], ignore_index=True)
    if manifest.empty:
        reasons = excluded["reason"].value_counts()
        said = "".join(f"\n  {n} of them: {reason}" for reason, n in reasons.head(5).items())
        raise ValueError(f"none of the {len(excluded)} scans can be used{said}")
    write_csv(out / "excluded.csv", excluded)
    write_csv(target, linked(manifest, folder, out))
    n = manifest["split"].value_counts()
    say(
        f"Wrote {target}: {', '.join(f'{n.get(s, 0)} {s}' for s in ('train', 'val', 'test'))}; "
        f"{len(excluded)} scans not taken (excluded.csv)."
    )
    return 0


def phantom(out: str, *, profile: str, studies: int | None) -> int:
    """The internal cohort of a finished run, in the layout of the Merlin Abdominal CT Dataset."""
    path = places.ROOT / "runs" / profile / "cohort" / "manifest.csv"
    table = load_manifest(places.upstream(path, "01_cohort"))
    table = table[table["site"] == "internal"].reset_index(drop=True)
    if studies:
        table = table.head(studies)
    folder = look_alike.write_release(table, out)
    say(
        f"Wrote {len(table)} synthetic studies to {folder}, and {folder.name}-patients.csv beside it."
    )
    return 0


def new_phantoms(
    out: Path, *, patients: int, site: str, seed: int, matrix: int, workers: int
) -> int:
    """A cohort of its own, with truth, reports and codes; what an interrupted call has made is kept."""
    if site not in synthesis.SITES:
        raise ValueError(f"--site {site}: expected one of {', '.join(synthesis.SITES)}")
    for name, value, least in (
        ("patients", patients, 1),
        ("matrix", matrix, 32),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ValueError(f"--{name} {value}: expected at least {least}")
    if out.exists() and any(out.iterdir()) and not cohort.is_of(out, seed, matrix):
        raise FileExistsError(
            f"{out} holds something else, or phantoms of other settings. Choose a new folder."
        )
    made = cohort.make(out, {site: patients}, seed=seed, matrix=matrix, n_workers=workers)
    for note in cohort.write(out, made):
        say(note)
    say(
        f"Wrote {len(made.table)} synthetic studies of {patients} patients to {out}: manifest.csv, truth.csv "
        "(every finding, said or not), codes.csv, and of each study a volume and a label map. Not patients."
    )
    return 0


def hospital(
    folder: str, out: Path, *, reports: str, codes: str | None, key: str, dates: str, redact: bool
) -> int:
    """A DICOM tree, reports and codes as a de-identified cohort; 1 if studies are left out."""
    said = read_table(reports, needed=hospitals.REPORT_COLUMNS)
    coded = read_codes(codes, owner="patient_id", dates=dates) if codes else None
    for table, name in ((said, "reports"), (coded, "codes")):
        for note in () if table is None else table.attrs["notes"]:
            say(f"{name}: {note}")
    secret = hospitals.read_key(key, out)
    begun = out / "UNFINISHED"
    # A keyed hash of all that a call reads: only the same call may go on where one stopped.
    tables = [file_hash(p) for p in (reports, codes) if p]
    tree = walk(Path(folder).resolve()).files
    files = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in tree]
    mark = hospitals.hashed(secret, "call", json.dumps([redact, dates, tables, files]))
    others = [p for p in out.iterdir() if p != begun] if out.exists() else []
    is_ours = begun.is_file() and not begun.is_symlink() and begun.read_text() == mark
    if begun.is_symlink() or (others and not is_ours):
        raise FileExistsError(
            f"{out} is not empty, and no interrupted call on the same files with this key left it so. "
            "Choose a new --out."
        )
    write_text(begun, mark)
    made = hospitals.deidentify(
        folder, said, coded, key=secret, out=out, redacts=redact, save=_save_volume
    )
    for name in ("manifest", "codes", "text_hits", "quarantine"):
        write_csv(out / f"{name}.csv", getattr(made, name))
    for path in (out / "volumes").glob("*"):  # of studies that an interrupted call had taken
        if path.name.removesuffix(".nii.gz") not in set(made.manifest.get("study_id", ())):
            path.unlink()
    begun.unlink()
    _tell(made, out)
    return 1 if len(made.quarantine) else 0


def _tell(made: hospitals.Cohort, out: Path) -> None:
    """Say what a cohort holds, and what no program can promise."""
    n_patients = made.manifest.get("patient_id", pd.Series()).nunique()
    say(
        f"{len(made.manifest)} studies of {n_patients} "
        f"patients in {out / 'manifest.csv'}; {len(made.quarantine)} left out (quarantine.csv)."
    )
    if made.n_unreported or made.n_unused:
        say(
            f"{made.n_unreported} studies have no report, {made.n_unused} reports no study: are accession "
            "numbers spelled alike in both?"
        )
    for note in made.notes:
        say(f"{note}")
    for kind, n in made.text_hits.groupby("kind")["n"].sum().items():
        say(f"{n:>8,}  {kind} in free text (text_hits.csv)")
    say(
        "Read the reports before you share them: no program can promise they are safe. Nicknames, names in "
        "a script that no header uses, garbled short names, people whom no header or column names and what "
        "only one person can have had are not found."
    )


def _save_volume(path: Path, volume: Volume) -> None:
    image = nib.Nifti1Image(volume.hu, volume.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as part:
        nib.save(image, part)
