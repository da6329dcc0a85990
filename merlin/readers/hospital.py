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

import dataclasses
import functools
import hashlib
import hmac
import re
import secrets
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from merlin.data import dicom, dicom_pixels
from merlin.data.codes import NO_CODES
from merlin.data.tables import SEXES, TableError, read_ages, read_dates, read_ids, why_apart
from merlin.data.tree import walk
from merlin.data.volume import UnreadableScan, is_machines, load_volume
from merlin.readers.names import (
    OTHER_NUMBER,
    OWN,
    PERSON,
    all_spans,
    common_words,
    find,
    find_numbers,
    looks_like,
)  # fmt: skip
from merlin.readers.patterns import DELETED, Span, read_text, redact
from merlin.readers.persons import (
    NOBODY,
    NUMBERS,
    Sought,
    Words,
    columns_of,
    is_unreadable,
    normal_number,
    people_in,
    said_in,
    words_said,
)  # fmt: skip
from merlin.words import shown

TAGS = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
        "PatientAge", "AccessionNumber", "StudyDate", "Manufacturer")  # fmt: skip
QUOTED = ("Modality", "ImageType", "RescaleType")  # by the reader's refusals
PLAIN = frozenset("CT CR DX KO MG MR NM OT PR PT RF SC SEG SR US XA HU RTDOSE RTSTRUCT".split())
MAX_AGE = 90  # older patients are written as 90
REPORT_COLUMNS = ("accession", "findings")
CODE_COLUMNS = ("patient_id", "date", "vocabulary", "code")


class Refused(ValueError):
    """Something would leave that must not, or an input lacks a column; all problems in the message."""


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


def read_key(path, out):
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


def hashed(key, kind, value, n=12):
    """`n` hex digits of the keyed hash of an identifier; `kind` keeps patients and studies apart."""
    return hmac.new(key, f"{kind}:{value}".encode(), hashlib.sha256).hexdigest()[:n]


def one_spelling(identifier):
    """An id as every table and header is made to spell it: no blanks around it, capitals."""
    said = str(identifier).strip().upper()
    number = said.partition("^")[0]  # 1000677^^^HOSP, as HL7 writes it
    return number.strip() if any(c.isdigit() for c in number) else said


def shift_days(key, patient):
    """Days by which a patient's dates move: the same for all of them, 1 to 365 forward or back."""
    place = int(hashed(key, "days", patient, 8), 16) % 730
    return place - 365 if place < 365 else place - 364


@dataclass(frozen=True)
class Study:
    """One study of a tree.

    Attributes
    ----------
    header : Dataset
        `TAGS` of its first file.
    files : list of Path
    series, shows : list of str
        Of each file: its series, and why it may show more than a body (`dicom.shows_more`).
    said : set of (str, str)
        Keyword and value of all that names a person or is one's number, in any of its files.
    quoted : set of str
        Words of its headers that a refusal of the reader may quote.
    """

    header: object
    files: list[Path] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    shows: list[str] = field(default_factory=list)
    said: set[tuple[str, str]] = field(default_factory=set)
    quoted: set[str] = field(default_factory=set)

    @property
    def kept(self) -> list[Path]:
        """Files of series in which no image may show more than a body."""
        behind = {s for s, why in zip(self.series, self.shows, strict=True) if why}
        return [f for f, s in zip(self.files, self.series, strict=True) if s not in behind]


def _read_header(path):
    """The study of one file, or None where it is no DICOM or names none."""
    import pydicom

    if not dicom.looks_like_dicom(path):
        return None
    header = dicom_pixels.read_file(path, path, stop_before_pixels=True)
    if not str(header.get("StudyInstanceUID", "")):
        return None
    facts = pydicom.Dataset()
    for tag in (t for t in TAGS if t in header):
        facts.add(header[tag])
    groups = header.get("SharedFunctionalGroupsSequence") or ()
    items = (i for g in groups for i in g.get("PixelValueTransformationSequence") or ())
    values = [part.get(t) for part in (header, *items) for t in QUOTED]
    quoted = {str(w) for v in values if v for w in ([v] if isinstance(v, str) else v)}
    series = str(header.get("SeriesInstanceUID", "")) or str(path.parent)
    return Study(facts, [path], [series], [dicom.shows_more(header)], said_in(header), quoted)


def find_studies(folder):
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
    tree, found, unread = walk(folder), {}, []
    for path in tqdm(tree.files, desc="headers"):
        try:
            with dicom_pixels.quietly():
                one = _read_header(path)
        except Exception as error:  # a damaged header may raise anything, with its bytes inside
            if is_machines(error):
                raise
            one = None
        if one is None:
            unread.append(path)
            continue
        study = found.setdefault(str(one.header.StudyInstanceUID), Study(one.header))
        for held, more in zip((study.files, study.series, study.shows),
                              (one.files, one.series, one.shows), strict=True):  # fmt: skip
            held += more
        study.said.update(one.said)
        study.quoted.update(one.quoted)
    if not found:
        raise Refused(f"no DICOM study in {shown(folder)} ({len(unread)} files of other kinds)")
    return found, unread, tree.notes


def own_words(header):
    """What a patient's header says that their report must not: names, numbers, birth date."""
    return words_said(said_in(header), own=True)


def scan_text(text, words):
    """Count what may identify somebody in a text.

    Returns
    -------
    dict of str to int
        `own identifier`, and the kinds of `merlin.readers.patterns`.
    """
    return dict(Counter(s.kind for s in all_spans(text, Sought(words))))


def identifiers_in(text, known):
    """Those of `known` that stand in a text, as it spells them, the longest first."""
    read = read_text(text)
    spans = [Span(a, b, "") for a, b in find_numbers(read, _normal(frozenset(known)), is_own=False)]
    return sorted({text[s.start : s.end] for s in read.spans(spans)}, key=len, reverse=True)


@functools.lru_cache(4)
def _normal(known):
    return frozenset(map(normal_number, known))


def telling(identifiers):
    """Identifiers that are one wherever they stand: no short number (an age, a size), no word (`NONE`)."""
    has_digit = {i for i in identifiers if any(c.isdigit() for c in i)}
    return frozenset(i for i in has_digit if len(i) > 3 and not (len(i) < 5 and i.isdigit()))


def deidentify(folder, reports, codes, *, key, out, redacts=False, save):
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
    rows, hits, left_out, patients, studies, own = [], [], [], {}, {}, {}
    if unread:
        left_out.append(("", f"{len(unread)} files are no readable DICOM"))
    for uid, study in tqdm(found.items(), desc="studies"):
        accession, patient = _ids(study.header)
        study_id = "S" + hashed(key, "study", uid)
        if not patient or accession in shared or is_unreadable(study.said):
            why = SHARED if accession in shared else UNREADABLE
            why = why if patient else "no patient id in its headers"
            left_out.append((study_id, why))
            continue
        own[study_id] = sought[uid].own
        patients[patient] = patient_id = "P" + hashed(key, "patient", patient)
        own[patient_id] = own.get(patient_id, NOBODY) | own[study_id]
        if accession:
            studies[accession] = study_id
        said = reports.loc[accession] if accession and accession in reports.index else {}
        place = int(hashed(key, "split", patient, 8), 16) % 5
        row = dict(study_id=study_id, patient_id=patient_id, site="internal",
                   split={3: "val", 4: "test"}.get(place, "train"),
                   volume=f"volumes/{study_id}.nii.gz",
                   **_about(study.header, key, patient))  # fmt: skip
        texts, part, why = _texts(said, sought[uid], study_id, redacts)
        hits += part
        if why:
            left_out.append((study_id, why))
            continue
        path = Path(out) / row["volume"]
        if not path.exists():  # else an interrupted call wrote it whole
            try:
                volume = _read_study(study.kept, unread)
            except (UnreadableScan, FileNotFoundError) as error:
                reason = _plain_reason(str(error), study, unread)
                left_out.append((study_id, redact(reason, all_spans(reason, sought[uid]))[:300]))
                continue
            save(path, volume)  # a full disk ends the call, which then resumes; no study is lost
        rows.append(row | texts)
    manifest, why = pd.DataFrame(rows), why_apart(reports.index, studies)
    made = Cohort(
        manifest,
        _coded(codes, key, patients, studies, set(manifest.get("study_id", ()))),
        pd.DataFrame(hits, columns=["study_id", "column", "kind", "n", "taken"]),
        pd.DataFrame(left_out, columns=["study_id", "reason"]),
        n_unreported=sum(not (r["findings"] or r["impression"]) for r in rows),
        n_unused=int((~reports.index.isin(list(studies))).sum()),
        notes=(
            *notes,
            *filter(None, [_counted(found.values()), _read_of_persons(reports, codes)]),
            *([f"Accession numbers do not meet: {why}."] if why else []),
        ),
    )
    _refuse_leaks(made, known, {i for i in (*patients, *studies) if len(i) > 3}, own)
    return made


WITHHELD = (
    "its report names the patient, another person of headers or tables, or a number of another study; "
    "mend it, or use --redact"
)
ALIKE = "its report holds what looks like the patient's name, spelt another way; mend it"
SHARED = "its accession number is that of another study too: no telling whose report is whose"

UNREADABLE = "its name cannot be read: signs of a name in its headers are lost (? or U+FFFD)"


def _ids(header):
    return tuple(one_spelling(header.get(t, "")) for t in ("AccessionNumber", "PatientID"))


def _known_numbers(found, reports, codes):
    """Record and accession numbers of everybody in headers and tables."""
    said = [v for s in found.values() for k, v in s.said if k in NUMBERS]
    tables = list(reports.index)
    if codes is not None:
        tables += [i for c in ("patient_id", "accession") if c in codes for i in codes[c]]
    return telling({one_spelling(i) for i in said} | set(tables))


def _sought(found, reports, codes, known):
    """Who is looked for in each study's report: uid → Sought."""
    by_accession = people_in(reports.reset_index(), "accession", ("findings", "impression"))
    by_patient = people_in(codes, "patient_id", CODE_COLUMNS) if codes is not None else {}
    tables = [w for part in (by_accession, by_patient) for pair in part.values() for w in pair]
    own, others = {}, {}
    for uid, study in found.items():
        accession, patient = _ids(study.header)
        rows = filter(None, (by_accession.get(accession), by_patient.get(patient)))
        own[uid] = words_said(study.said, own=True)
        others[uid] = words_said(study.said, own=False)
        for mine, theirs in rows:
            own[uid], others[uid] = own[uid] | mine, others[uid] | theirs
    everyone = [*own.values(), *others.values(), *tables]
    everybody = Words(
        frozenset(n for w in everyone for n in w.names),
        frozenset(n for w in everyone for n in w.joined),
    )
    patient_of = dict(_ids(s.header) for s in found.values())
    texts: dict[str, str] = {}  # by patient: a word of one patient's many reports is not common
    parts = reports.reindex(columns=["findings", "impression"]).fillna("")
    for accession, *row in parts.itertuples():
        patient = patient_of.get(accession) or accession
        texts[patient] = " ".join([texts.get(patient, ""), *map(str, row)])
    common, numbers = common_words(texts.values()), _normal(known)
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


def _shared_accessions(found):
    """Accession numbers that stand in the headers of several studies."""
    numbers = pd.Series([_ids(s.header)[0] for s in found.values()])
    return set(numbers[numbers.duplicated() & (numbers != "")])


def _texts(said, sought, study_id, redacts):
    """A study's report as it may leave, what was found in it, and why it may not leave."""
    texts, hits, why = {"findings": "", "impression": ""}, [], ""
    for column in texts:
        text = str(said.get(column, "") or "")
        spans = all_spans(text, sought)
        found = Counter(s.kind for s in spans)
        names = {OWN, PERSON, OTHER_NUMBER} & set(found)
        taken = "replaced" if redacts else "study withheld" if names else "kept"
        hits += [(study_id, column, kind, n, taken) for kind, n in found.items()]
        why = WITHHELD if names and not redacts else why
        texts[column] = redact(text, spans) if redacts else text
    for column, text in texts.items():  # the last look: nothing may have slipped through
        others = dataclasses.replace(sought.others, names=sought.others.names - sought.common)
        if not why and (n := looks_like(text, sought.own | others, sought.common)):
            hits.append((study_id, column, "looks like a name", n, "study withheld"))
            why = ALIKE
    return texts, hits, why


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


def _counted(studies):
    """What may show more than a body in studies, and that it stays behind; or nothing."""
    reasons = sorted(Counter(why for s in studies for why in s.shows if why).items())
    said = ", ".join(f"{n} {why}" for why, n in reasons)
    return f"{said} left behind with their series: pixels may show who it is." if said else ""


def _read_of_persons(reports, codes):
    """Which columns were read as persons', so that others can be renamed; or nothing."""
    read = [c for k in columns_of(reports, ("findings", "impression")).values() for c in k]
    if codes is not None:
        read += [c for k in columns_of(codes, CODE_COLUMNS).values() for c in k]
    said = ", ".join(shown(c, 40) for c in read)
    return f"Columns read for persons and numbers to look for: {said}." if said else ""


def _plain_reason(text, study, unread):
    """A refusal without paths, names of files and words of the header: any of them may name a person."""
    text = text.split(": ", 1)[-1].replace(str(study.header.StudyInstanceUID), DELETED)
    for name in sorted({f.name for f in (*study.files, *unread)}, key=len, reverse=True):
        text = re.sub(rf"\b\d+/{re.escape(shown(name))}", "a file", text)
    words = {
        w for word in study.quoted for w in (word, word[:16]) if re.search(r"[^\W\d_]{2}", word)
    }
    for word in sorted(words - PLAIN, key=len, reverse=True):
        text = re.sub(rf"(?i)(?<!\w){re.escape(shown(word))}(?!\w)", DELETED, text)
    return " ".join(filter(None, [_counted([study]), text]))


def _about(header, key, patient):
    age = _age(header)
    date = _day(header, "StudyDate")
    moved = date + pd.Timedelta(days=shift_days(key, patient))
    return dict(
        sex=SEXES.get(str(header.get("PatientSex", "")).strip().casefold(), ""),
        age="" if age is None else str(min(age, MAX_AGE)),
        date="" if pd.isna(date) else moved.date().isoformat(),
        manufacturer=_maker(str(header.get("Manufacturer", ""))),
    )


# The one text of a header that leaves is one of these: whatever else stands there may name somebody.
MAKERS = {m.casefold(): m for m in (
    "Siemens", "GE", "Philips", "Canon", "Toshiba", "Hitachi", "Fujifilm", "Shimadzu", "Picker", "Elscint",
    "Marconi", "Imatron", "Neusoft", "United Imaging", "UIH", "MinFound", "Anke", "NeuroLogica", "Samsung",
)}  # fmt: skip


def _maker(text):
    """The scanner's maker among those known, or nothing."""
    said = re.search(rf"(?i)\b({'|'.join(MAKERS)})\b", text)
    return MAKERS[said[1].casefold()] if said else ""


def _age(header):
    try:
        age = read_ages(pd.Series([str(header.get("PatientAge", ""))]), where="age")[0]
    except TableError:
        age = float("nan")
    if not pd.isna(age):
        return int(age)
    born, seen = _day(header, "PatientBirthDate"), _day(header, "StudyDate")
    return None if pd.isna(born) or pd.isna(seen) else int((seen - born).days / 365.25)


def _day(header, tag):
    said = str(header.get(tag, "")).replace(".", "")  # 1954.03.02 in files before DICOM 3
    return pd.to_datetime(said.strip(), format="%Y%m%d", errors="coerce")


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


# Cells with words that are not ours.
WRITTEN = ("findings", "impression", "manufacturer", "vocabulary", "code")


def _refuse_leaks(made, known, taken, own):
    """A last look before anything is handed over.

    No record or accession number of anybody (`known`, and whatever the ids of studies read look like,
    `taken`) in any cell, none that is `known` in a report, and in no cell of a study's or a patient's
    rows a name, number or birth date of that patient.
    """
    for name in ("manifest", "codes", "text_hits", "quarantine"):
        table = getattr(made, name).astype(str)
        # A diagnosis code may happen to be spelled like a record number.
        for column in table.columns.difference(["code", "vocabulary"]):
            found = table[column].isin(known | taken)
            if column in ("findings", "impression"):
                found = table[column].map(lambda text: bool(identifiers_in(text, known)))
            if found.any():
                raise Refused(f"{name}, column {column}: holds a record or accession number")
        if "study_id" not in table:
            continue
        whose = "patient_id" if name == "codes" else "study_id"
        for key, rows in table.groupby(whose):
            words = own.get(key, NOBODY)
            if name == "codes":  # any number may be a code
                words = dataclasses.replace(
                    words, numbers=frozenset(n for n in words.numbers if not n.isdigit())
                )
            for column in table.columns.intersection(WRITTEN):
                if find(read_text("\n".join(rows[column].unique())), words):
                    raise Refused(
                        f"{name}, column {column}, {whose} {key}: holds a name, number or birth date "
                        "of its patient"
                    )
