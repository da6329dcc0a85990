"""How the commands are called that turn other people's data into cohorts: options, help, and what runs."""

from pathlib import Path
from typing import Literal

from merlin.commands.options import Days, Flag, Overwrite, Pairs


def release(
    folder: str,
    /,
    *,
    out: Path,
    patients: str | None = None,
    dates: Days = None,
    column: Pairs | None = None,
    overwrite: Overwrite = False,
) -> int:
    """Read the Merlin Abdominal CT Dataset into a manifest, with an audit.

    Reads the data release's folder and writes manifest.csv (the schema of data_manifests/README.md) and
    audit.csv: counts, how columns were matched, and everything odd with how it was taken. What is not
    understood and missing files are refused, all at once.

    Parameters
    ----------
    folder
        As merlinabdominalctdataset/.
    out
        Folder for manifest.csv and audit.csv.
    patients
        Table of study id, patient id and, if known, date; the release has none.
    dates
        Order of day and month in that table, where its dates do not tell.
    column
        OURS THEIRS where a column has another name, as --column findings Text.
    """
    from merlin.commands import cohorts

    renamed = dict(column or ())
    return cohorts.release(
        folder, out, columns=renamed, patients=patients, dates=dates or "", overwrite=overwrite
    )


def phantom(
    *,
    out: str,
    layout: Literal["merlin"] | None = None,
    profile: str = "smoke",
    studies: int | None = None,
    patients: int = 100,
    site: str = "internal",
    seed: int = 1,
    matrix: int = 76,
    workers: int = 1,
) -> int:
    """Write phantoms: a cohort of any size and seed, or one in a data set's layout.

    Without --layout new patients are drawn, for tests of your own: volumes and label maps as NIfTI,
    reports, codes, and truth.csv with every finding, its side, size and severity. The same seed gives the
    same files. docs/data_card.md says what they are fit for.

    With --layout merlin the internal cohort of a finished run is written in the layout of the Merlin
    Abdominal CT Dataset: a look-alike to try the full tier on. Volumes are linked, not copied, where the
    disk allows.

    Parameters
    ----------
    out
        A new folder.
    layout
        Of a data set.
    profile
        Whose cohort (with --layout).
    studies
        Only the first so many (with --layout).
    patients
        How many; about a quarter have more than one study.
    site
        internal, site_b, site_c or spine: scanner, prevalences, readers.
    matrix
        Pixels along x and y of a scan; 512 on a real scanner.
    workers
        Processes; the cohort is the same for any number.
    """
    from merlin.commands import cohorts

    if layout:
        return cohorts.phantom(out, profile=profile, studies=studies)
    return cohorts.new_phantoms(
        Path(out), patients=patients, site=site, seed=seed, matrix=matrix, workers=workers
    )


def hospital(
    folder: str,
    /,
    *,
    reports: str,
    codes: str | None = None,
    key: str,
    out: Path,
    dates: Days = None,
    redact: Flag = False,
) -> int:
    """Turn a DICOM tree, reports and codes into a de-identified cohort.

    Writes NIfTI volumes, manifest.csv, codes.csv, text_hits.csv and quarantine.csv. Ids are keyed hashes,
    dates are shifted by patient, no header text but the scanner's maker leaves. Series whose pixels may
    show text or a screen stay behind. A report that holds a name, number or birth date of any header of
    its study or of its table rows, or a name or number of any other, is withheld with its study, or has
    them replaced with --redact. Read text_hits.csv and the reports before you share anything: no program
    can promise that free text is safe.

    What no scan can find: nicknames and translated names, a name in a script that no header uses, several
    wrong letters in a short name, a name that is a word at the head of a sentence, relatives and staff
    whom no header or column names, an illness or event that tells who it was. Columns of the tables whose
    names speak of persons (patient_name, radiologist, ...) are looked for, too.

    Parameters
    ----------
    folder
        The DICOM tree.
    reports
        CSV: accession, findings and perhaps impression.
    codes
        CSV: patient_id, date, vocabulary, code and perhaps accession.
    key
        File of the secret; made if absent; keep it outside --out.
    out
        A new folder.
    dates
        Of the codes' dates, where the column itself cannot tell day from month.
    redact
        Replace what is found by `<DELETED>` instead of withholding.
    """
    from merlin.commands import cohorts

    return cohorts.hospital(
        folder, out, reports=reports, codes=codes, key=key, dates=dates or "", redact=redact
    )


def verse(
    folder: str,
    /,
    *,
    grades: str,
    subject: str = "subject",
    min_grade: int = 1,
    out: str,
    overwrite: Overwrite = False,
) -> int:
    """Read the VerSe dataset and its fracture grades into a manifest.

    Lists the scans of the unpacked VerSe parts (dataset-verse20test/ and its like) with a fracture label
    each: 1 if any vertebra's grade reaches --min-grade, empty without a grade. Patients that stand in
    several parts get one split. The grades are a table of one row a subject, columns named like
    vertebrae. See docs/full_tier.md.

    Parameters
    ----------
    grades
        Table of subject and a grade per vertebra.
    subject
        Its column of subjects.
    min_grade
        Genant's.
    out
        Folder for manifest.csv.
    """
    from merlin.commands import cohorts

    return cohorts.verse(
        folder, out, grades=grades, subject=subject, min_grade=min_grade, overwrite=overwrite
    )


def totalsegmentator(
    folder: str,
    /,
    *,
    out: Path,
    min_structures: int = 10,
    workers: int = 2,
    overwrite: Flag = False,
) -> int:
    """Read the TotalSegmentator dataset into a manifest with label maps.

    Joins each scan's masks into one label map of our 20 structures and writes manifest.csv, with the
    dataset's own splits, and excluded.csv. A call that was interrupted resumes. See docs/full_tier.md.

    Parameters
    ----------
    folder
        That holds meta.csv.
    out
        Folder for manifest.csv and label_maps/.
    min_structures
        A scan holds at least so many.
    workers
        Processes.
    overwrite
        Replace a manifest that exists; label maps whose masks are unchanged stay.
    """
    from merlin.commands import cohorts

    return cohorts.totalsegmentator(
        folder, out, min_structures=min_structures, workers=workers, overwrite=overwrite
    )
