"""A hospital's own studies as a de-identified cohort: DICOM tree, reports and codes in, manifest out.

What leaves is a NIfTI volume a study (geometry and HU, no header text), reports, codes that are spelled
as ICD spells them, sex, age, the scanner's maker if it is a known one, and the manifest of
`data_manifests/README.md`. Series of which the header says that pixels may show more than a body (text
burned in, a capture of a screen, a workstation's picture) stay behind. Patients and studies get new ids,
the first digits of a keyed hash (HMAC-SHA-256): the same patient gets the same id on every call with
the same key, and without the key nobody can compute an id from a record number. The key is a file that
stays outside. Dates are shifted by a number of days that is fixed for a patient, so that intervals
keep.

Free text cannot be made safe by a program. A report is looked through for every name, number and birth
date in any header of its study and in the tables' rows of it (`merlin.readers.names` says how), and for
names and numbers of all other studies and rows. Where it holds one, the study is withheld or, on
request, has them replaced by `<DELETED>`. A second, coarser look at what is about to leave withholds
studies with something like the patient's name in it, and a study in whose headers a name has lost
signs (`M?ller`) stays behind: what cannot be read cannot be looked for. What may be a date, a telephone number, a title
with a name or a signature is counted and reported, for a person to read before anything is shared.
"""

import hashlib
import hmac
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from merlin.data import dicom_pixels
from merlin.data.cells import read_dates, read_ids, why_apart
from merlin.data.codes import NO_CODES
from merlin.data.scan import UnreadableScan, Volume, is_machines
from merlin.data.tree import walk
from merlin.data.volume import load_volume
from merlin.readers import headers, leaks
from merlin.readers.first_look import common_words
from merlin.readers.headers import Study, one_spelling
from merlin.readers.leaks import TEXTS, Refused
from merlin.readers.names import all_spans
from merlin.readers.patterns import DELETED, redact
from merlin.readers.persons import NOBODY, SAID, Sought, Words, columns_of, people_in
from merlin.words import shown

REPORT_COLUMNS = ("accession", "findings")
CODE_COLUMNS = ("patient_id", "date", "vocabulary", "code")
SHARED = "its accession number is that of another study too: no telling whose report is whose"
UNREADABLE = "its name cannot be read: signs of a name in its headers are lost (? or U+FFFD)"


@dataclass(frozen=True)
class Cohort:
    """What `deidentify` made: tables without any identifier.

    Attributes
    ----------
    manifest, codes : DataFrame
    text_hits : DataFrame
        `study_id, column, kind, n, taken`: what was found in free text, never the text itself.
    quarantine : DataFrame
        `study_id, reason`: studies left out.
    n_unreported : int
        Studies of the manifest without a report.
    n_unused : int
        Reports whose accession number no study has.
    notes : tuple of str
        What was left out on the way, and why reports and studies do not meet.
    """

    manifest: pd.DataFrame
    codes: pd.DataFrame
    text_hits: pd.DataFrame
    quarantine: pd.DataFrame
    n_unreported: int
    n_unused: int
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Those that are written, by the names of their files."""
        names = ("manifest", "codes", "text_hits", "quarantine")
        return {name: getattr(self, name) for name in names}


def read_key(path: str | Path, out: str | Path) -> bytes:
    """The secret of the hash, from a file; made (readable by its owner alone) if there is none.

    Raises
    ------
    Refused
        If the file would lie inside `out`, or is too short to be a key.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    if path.is_relative_to(out):
        raise Refused(f"the key {path.name} would lie inside the output; keep it elsewhere")
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32) + "\n")
    key = path.read_text().strip().encode()
    if len(key) < 32:
        raise Refused(f"{path.name}: {len(key)} characters. Expected a key of at least 32.")
    return key


def hashed(key: bytes, kind: str, value: str, n: int = 12) -> str:
    """`n` hex digits of the keyed hash of an identifier; `kind` keeps patients and studies apart."""
    return hmac.new(key, f"{kind}:{value}".encode(), hashlib.sha256).hexdigest()[:n]


def shift_days(key: bytes, patient: str) -> int:
    """Days by which a patient's dates move: the same for all of them, 1 to 365 forward or back."""
    place = int(hashed(key, "days", patient, 8), 16) % 730
    return place - 365 if place < 365 else place - 364


def find_studies(folder: str | Path) -> tuple[dict[str, Study], list[Path], tuple[str, ...]]:
    """DICOM files of a tree by study.

    Returns
    -------
    studies : dict of str to Study
        By study instance UID.
    unread : list of Path
        Files whose header could not be read as DICOM.
    notes : tuple of str
        What the walk over the folder left out.

    Raises
    ------
    Refused
        If there is no such folder, or no DICOM in it.
    """
    if not Path(folder).is_dir():
        raise Refused(f"no folder {shown(folder)}")
    tree = walk(folder)
    found: dict[str, Study] = {}
    unread: list[Path] = []
    for path in tqdm(tree.files, desc="headers"):
        try:
            with dicom_pixels.quietly():
                one = headers.read_header(path)
        except Exception as error:  # a damaged header may raise anything, with its bytes inside
            if is_machines(error):
                raise
            one = None
        if one is None:
            unread.append(path)
        elif (uid := str(one.header.StudyInstanceUID)) in found:
            found[uid].add(one)
        else:
            found[uid] = one
    if not found:
        raise Refused(f"no DICOM study in {shown(folder)} ({len(unread)} files of other kinds)")
    return found, unread, tree.notes


def deidentify(
    folder: str | Path,
    reports: pd.DataFrame,
    codes: pd.DataFrame | None,
    *,
    key: bytes,
    out: str | Path,
    redacts: bool = False,
    save: Callable[[Path, Volume], None],
) -> Cohort:
    """Read a DICOM tree and two tables; write volumes; return tables without identifiers.

    Parameters
    ----------
    folder : path
        DICOM files of any number of studies, in any folders.
    reports : DataFrame
        `accession, findings` and perhaps `impression`, as text.
    codes : DataFrame or None
        `patient_id, date, vocabulary, code` and perhaps `accession`, as `codes.read_codes` gives it.
    key : bytes
        From `read_key`.
    out : path
        Volumes go to `out/volumes/ID.nii.gz`; those that are there are not read again, so that a
        killed call resumes.
    redacts : bool
        Replace identifiers in reports instead of withholding the study.
    save : callable
        (path, Volume): writes a volume.

    Returns
    -------
    Cohort

    Raises
    ------
    Refused
        With every missing column.
    """
    _require_columns(reports, codes)
    reports, codes = _spelled(reports, codes)
    found, unread, notes = find_studies(folder)
    shared = _shared_accessions(found)
    known = _known_numbers(found, reports, codes)
    sought = _sought(found, reports, codes, known)
    rows, hits = [], []
    left_out = [("", f"{len(unread)} files are no readable DICOM")] if unread else []
    patients: dict[str, str] = {}
    studies: dict[str, str] = {}
    own: dict[str, Words] = {}
    for uid, study in tqdm(found.items(), desc="studies"):
        accession, patient = study.ids
        study_id = "S" + hashed(key, "study", uid)
        if why := _why_nobodys(study, shared):
            left_out.append((study_id, why))
            continue
        own[study_id] = sought[uid].own
        patients[patient] = patient_id = "P" + hashed(key, "patient", patient)
        own[patient_id] = own.get(patient_id, NOBODY) | own[study_id]
        if accession:
            studies[accession] = study_id
        said = reports.loc[accession] if accession and accession in reports.index else {}
        texts, part, why = leaks.texts_that_leave(said, sought[uid], redacts=redacts)
        hits += [(study_id, *hit) for hit in part]
        volume = f"volumes/{study_id}.nii.gz"
        why = why or _write_volume(Path(out) / volume, study, unread, sought[uid], save)
        if why:
            left_out.append((study_id, why))
            continue
        place = int(hashed(key, "split", patient, 8), 16) % 5
        rows.append(
            dict(study_id=study_id, patient_id=patient_id, site="internal",
                 split={3: "val", 4: "test"}.get(place, "train"), volume=volume)
            | headers.about(study.header, shift_days(key, patient))
            | texts
        )  # fmt: skip
    manifest = pd.DataFrame(rows)
    apart = why_apart(reports.index, studies)
    notes = (
        *notes,
        _left_behind(found.values()),
        _read_of_persons(reports, codes),
        f"Accession numbers do not meet: {apart}." if apart else "",
    )
    made = Cohort(
        manifest,
        _coded(codes, key, patients, studies, set(manifest.get("study_id", ()))),
        pd.DataFrame(hits, columns=["study_id", "column", "kind", "n", "taken"]),
        pd.DataFrame(left_out, columns=["study_id", "reason"]),
        n_unreported=sum(not (r["findings"] or r["impression"]) for r in rows),
        n_unused=int((~reports.index.isin(list(studies))).sum()),
        notes=tuple(filter(None, notes)),
    )
    leaks.refuse_leaks(made.tables, known, {i for i in (*patients, *studies) if len(i) > 3}, own)
    return made


def _why_nobodys(study: Study, shared: set[str]) -> str:
    """Why nobody can tell whose a study is, or nothing."""
    accession, patient = study.ids
    if not patient:
        return "no patient id in its headers"
    if accession in shared:
        return SHARED
    return UNREADABLE if headers.is_unreadable(study.said) else ""


def _write_volume(path, study, unread, sought, save) -> str:
    """Write a study's volume, unless an interrupted call wrote it whole; why it cannot be read, or nothing."""
    if path.exists():
        return ""
    try:
        volume = _read_study(study.kept, unread)
    except (UnreadableScan, FileNotFoundError) as error:
        reason = _plain_reason(str(error), study, unread)
        return redact(reason, all_spans(reason, sought))[:300]
    save(path, volume)  # a full disk ends the call, which then resumes; no study is lost
    return ""


def _known_numbers(found: Mapping[str, Study], reports, codes) -> frozenset[str]:
    """Record and accession numbers of everybody in headers and tables."""
    said = [v for s in found.values() for k, v in s.said if k in headers.NUMBERS]
    tables = list(reports.index)
    if codes is not None:
        tables += [i for c in ("patient_id", "accession") if c in codes for i in codes[c]]
    return leaks.telling({one_spelling(i) for i in said} | set(tables))


def _sought(found: Mapping[str, Study], reports, codes, known) -> dict[str, Sought]:
    """Who is looked for in each study's report: uid → Sought."""
    by_accession = people_in(reports.reset_index(), "accession", TEXTS)
    by_patient = people_in(codes, "patient_id", CODE_COLUMNS) if codes is not None else {}
    tables = [w for part in (by_accession, by_patient) for pair in part.values() for w in pair]
    own, others = {}, {}
    for uid, study in found.items():
        accession, patient = study.ids
        rows = filter(None, (by_accession.get(accession), by_patient.get(patient)))
        own[uid] = headers.words_said(study.said, own=True)
        others[uid] = headers.words_said(study.said, own=False)
        for mine, theirs in rows:
            own[uid], others[uid] = own[uid] | mine, others[uid] | theirs
    everyone = [*own.values(), *others.values(), *tables]
    everybody = Words(
        frozenset().union(*(w.names for w in everyone)),
        frozenset().union(*(w.joined for w in everyone)),
    )
    patient_of = dict(s.ids for s in found.values())
    texts: dict[str, str] = {}  # by patient: a word of one patient's many reports is not common
    parts = reports.reindex(columns=TEXTS, fill_value="").fillna("")
    for accession, *row in parts.itertuples():
        patient = patient_of.get(accession) or accession
        texts[patient] = " ".join([texts.get(patient, ""), *map(str, row)])
    common, numbers = common_words(texts.values()), leaks.normal_numbers(known)
    return {u: Sought(own[u], others[u], everybody, common, numbers) for u in found}


def _spelled(reports, codes):
    """Both tables with ids in one spelling; reports by accession, rows without one left out."""
    ids = read_ids(reports["accession"], where="reports, column accession")
    reports = reports.assign(accession=ids.map(one_spelling))
    reports = reports[reports["accession"] != ""].drop_duplicates()
    twice = reports["accession"].duplicated(keep=False)
    if twice.any():
        rows = ", ".join(str(i + 2) for i in reports.index[twice][:8])
        raise Refused(
            f"reports: rows {rows}: one accession number with different reports; keep one"
        )
    if codes is not None:
        codes = codes.assign(patient_id=codes["patient_id"].map(one_spelling))
        if "accession" in codes:
            codes["accession"] = codes["accession"].map(one_spelling)
    return reports.set_index("accession"), codes


def _shared_accessions(found: Mapping[str, Study]) -> set[str]:
    """Accession numbers that stand in the headers of several studies."""
    numbers = Counter(s.ids[0] for s in found.values())
    return {number for number, n in numbers.items() if number and n > 1}


def _require_columns(reports, codes):
    problems = [f"reports: no column {c}" for c in REPORT_COLUMNS if c not in reports]
    if codes is not None:
        problems += [f"codes: no column {c}" for c in CODE_COLUMNS if c not in codes]
    if problems:
        raise Refused("; ".join(problems))


def _read_study(files, unread):
    """Files of one study may lie among others': read them through a folder of links.

    Unreadable files beside them come along under their names: named like the series, they are its holes.
    """
    if not files:
        raise UnreadableScan("the study: Nothing else is in it.")
    places = {p: i for i, p in enumerate(dict.fromkeys(f.parent for f in files))}
    with tempfile.TemporaryDirectory() as folder:
        for file in (*files, *(f for f in unread if f.parent in places)):
            place = Path(folder) / str(places[file.parent])
            place.mkdir(exist_ok=True)
            (place / file.name).symlink_to(file.resolve())
        return load_volume(folder)


def _left_behind(studies):
    """What may show more than a body in studies, and that it stays behind; or nothing."""
    reasons = sorted(Counter(f.shows for s in studies for f in s.files if f.shows).items())
    said = ", ".join(f"{n} {why}" for why, n in reasons)
    return f"{said} left behind with their series: pixels may show who it is." if said else ""


def _read_of_persons(reports, codes):
    """Which columns were read as persons', so that others can be renamed; or nothing."""
    read = [c for k in columns_of(reports, TEXTS).values() for c in k]
    if codes is not None:
        read += [c for k in columns_of(codes, CODE_COLUMNS).values() for c in k]
    said = ", ".join(shown(c, 40) for c in read)
    return f"Columns read for persons and numbers to look for: {said}." if said else ""


def _plain_reason(text, study, unread):
    """A refusal without paths, names of files and words of the header: any of them may name a person."""
    paths = [f.path for f in study.files]
    text = text.split(": ", 1)[-1].replace(str(study.header.StudyInstanceUID), DELETED)
    for name in sorted({p.name for p in (*paths, *unread)}, key=len, reverse=True):
        text = re.sub(rf"\b\d+/{re.escape(shown(name))}", "a file", text)
    words = {
        w for word in study.quoted for w in (word, word[:16]) if re.search(r"[^\W\d_]{2}", word)
    }
    for word in sorted(words - {*SAID["modalities"].split()}, key=len, reverse=True):
        text = re.sub(rf"(?i)(?<!\w){re.escape(shown(word))}(?!\w)", DELETED, text)
    return " ".join(filter(None, [_left_behind([study]), text]))


CODED = ("ICD9CM", "ICD10CM", "ICD10")
_ICD = re.compile(
    r"(?i)(?:\d{1,3}(?:\.\d{0,2})?|\d{4,5}|[EV]\d{2,3}\.?\d{0,2}|[A-Z]\d[\dA-Z]\.?[\dA-Z]{0,4})[*+†! ]{0,2}"
)


def _coded(codes, key, patients, studies, kept):
    if codes is None:
        return NO_CODES
    codes = codes[codes["patient_id"].isin(patients)]
    date = read_dates(codes["date"], where="codes, column date")
    moved = date + pd.to_timedelta([shift_days(key, p) for p in codes["patient_id"]], unit="D")
    is_code = codes["vocabulary"].isin(CODED) & codes["code"].str.fullmatch(_ICD)
    at = codes["accession"].map(studies) if "accession" in codes else pd.Series("", codes.index)
    at = at.fillna("")
    return pd.DataFrame(
        {
            "patient_id": codes["patient_id"].map(patients),
            "study_id": at.where(at.isin(kept), ""),
            "date": moved.dt.date.astype(str).replace("NaT", ""),
            "vocabulary": codes["vocabulary"].where(is_code, "other"),
            "code": codes["code"].where(is_code, "other"),
        }
    ).reset_index(drop=True)
