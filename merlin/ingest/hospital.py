"""A hospital's own studies as a de-identified cohort: DICOM tree, reports and codes in, manifest out.

What leaves is a NIfTI volume a study (geometry and HU, no header text), reports, codes, sex, age, the
manufacturer's name, and the manifest of `data_manifests/README.md`. Patients and studies get new ids,
the first digits of a keyed hash (HMAC-SHA-256): the same patient gets the same id on every call with
the same key, and without the key nobody can compute an id from a record number. The key is a file that
stays outside. Dates are shifted by a number of days that is fixed for a patient, so that intervals
keep.

Free text cannot be made safe by a program. A report that holds its own patient's name, record number,
accession number or birth date, or the record or accession number of any other study or table row, is
withheld (or, on request, has them replaced by `<DELETED>`); what looks like a date, telephone number,
address or title with a name is counted and reported, for a person to read before anything is shared.
"""

import hashlib
import hmac
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

TAGS = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
        "PatientAge", "AccessionNumber", "StudyDate", "Manufacturer")  # fmt: skip
DELETED = "<DELETED>"
MAX_AGE = 90  # older patients are written as 90
# What may name a person or a day; each is counted, none is proof.
PATTERNS = {
    "date": r"\b(?:\d{1,2}[/.-]\d{1,2}[/.-](?:19|20)?\d{2}|(?:19|20)\d{2}-\d{2}-\d{2})\b",
    "telephone": r"(?<!\d)(?:\+?\d{1,2}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)",
    "e-mail": r"\b[\w.+-]+@[\w-]+\.[\w.]+\b",
    "titled name": r"\b(?:Dr|Mr|Mrs|Ms|Prof)\.? [A-Z][a-z]+",
    "date in words": r"\b(?:\d{1,2}\.? )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.? "
    r"(?:\d{1,2},? )?(?:19|20)\d{2}\b",
    "long number": r"\b\d{7,}\b",
}
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
    """

    manifest: pd.DataFrame
    codes: pd.DataFrame
    text_hits: pd.DataFrame
    quarantine: pd.DataFrame
    n_unreported: int
    n_unused: int


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
    return str(identifier).strip().upper()


def shift_days(key, patient):
    """Days by which a patient's dates move: the same for all of them, 1 to 365 forward or back."""
    place = int(hashed(key, "days", patient, 8), 16) % 730
    return place - 365 if place < 365 else place - 364


def find_studies(folder):
    """DICOM files of a tree by study.

    Returns
    -------
    studies : dict of str to (Dataset, list of Path)
        Study instance UID → one header with `TAGS`, and the study's files.
    n_unread : int
        Files whose header could not be read as DICOM.

    Raises
    ------
    Refused
        If there is no such folder, or no DICOM in it.
    """
    import pydicom

    if not Path(folder).is_dir():
        raise Refused(f"no folder {folder}")
    found, n_unread = {}, 0
    for path in tqdm(sorted(p for p in Path(folder).rglob("*") if p.is_file()), desc="headers"):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            uid = str(header.get("StudyInstanceUID", ""))
        except Exception:  # noqa: BLE001 - a damaged header may raise anything, with its bytes inside
            uid = ""
        if uid:
            found.setdefault(uid, (header, []))[1].append(path)
        else:
            n_unread += 1
    if not found:
        raise Refused(f"no DICOM study in {folder} ({n_unread} files of other kinds)")
    return found, n_unread


def own_words(header):
    """What a patient's header says that their report must not: names, numbers, birth date."""
    name = re.split(r"[\^ ,=]+", str(header.get("PatientName", "")))
    words = [w for w in name if len(w) > 1]
    words += [str(header.get(t, "")).strip() for t in ("PatientID", "AccessionNumber")]
    born = pd.to_datetime(str(header.get("PatientBirthDate", "")), format="%Y%m%d", errors="coerce")
    if not pd.isna(born):
        y, m, d = born.year, born.month, born.day
        short, full = born.strftime("%b"), born.strftime("%B")
        words += [born.strftime("%Y%m%d"), f"{y}-{m:02}-{d:02}"]
        for a, b in ((m, d), (d, m)):  # either order, with and without zeros, long and short years
            for sign in "/.-":
                words += [f"{x}{sign}{z}{sign}{year}" for x, z in ((a, b), (f"{a:02}", f"{b:02}"))
                          for year in (y, f"{y % 100:02}")]  # fmt: skip
        for month in (short, full):
            words += [
                f"{month} {d}, {y}",
                f"{month} {d} {y}",
                f"{d} {month} {y}",
                f"{d}. {month} {y}",
            ]
    return [w for w in dict.fromkeys(words) if len(w) > 1]


def _pattern(word):
    """How a word is looked for: names of two letters with their capital, all else in any case."""
    plain = rf"(?<!\w){re.escape(word)}(?!\w)"
    return re.compile(plain, 0 if len(word) == 2 else re.IGNORECASE)


def scan_text(text, words):
    """Count what may identify somebody in a text.

    Returns
    -------
    dict of str to int
        `own identifier`, and the names of `PATTERNS`.
    """
    own = sum(len(_pattern(w).findall(text)) for w in words)
    counts = {"own identifier": own} | {k: len(re.findall(p, text)) for k, p in PATTERNS.items()}
    return {k: n for k, n in counts.items() if n}


def identifiers_in(text, known):
    """Those of `known` (in `one_spelling`) that stand in a text, as it spells them, the longest first.

    Up to four words with what stands between them: ids may hold blanks and hyphens.
    """
    words = list(re.finditer(r"\w+", text))
    said = {text[a.start() : b.end()] for i, a in enumerate(words) for b in words[i : i + 4]}
    return sorted((t for t in said if one_spelling(t) in known), key=len, reverse=True)


def telling(identifiers):
    """Identifiers that are one wherever they stand: no short number (an age, a size), no word (`NONE`)."""
    has_digit = {i for i in identifiers if any(c.isdigit() for c in i)}
    return {i for i in has_digit if len(i) > 3 and not (len(i) < 5 and i.isdigit())}


def redact(text, words):
    """The text with its own patient's identifiers, and all that `PATTERNS` match, replaced."""
    for word in words:
        text = _pattern(word).sub(DELETED, text)
    for pattern in PATTERNS.values():
        text = re.sub(pattern, DELETED, text)
    return text


def deidentify(folder, reports, codes, *, key, out, redacts=False, save):
    """Read a DICOM tree and two tables; write volumes; return tables without identifiers.

    Parameters
    ----------
    folder : path
        DICOM files of any number of studies, in any folders.
    reports : DataFrame
        `accession, findings` and perhaps `impression`, as text.
    codes : DataFrame or None
        `patient_id, date, vocabulary, code` and perhaps `accession`, as text.
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
    from merlin.ingest.volume import UnreadableScan, load_volume

    _require_columns(reports, codes)
    reports, codes = _spelled(reports, codes)
    found, n_unread = find_studies(folder)
    shared = _shared_accessions(found)
    headers = [h.get(t, "") for h, _ in found.values() for t in ("PatientID", "AccessionNumber")]
    tables = list(reports.index)
    if codes is not None:
        tables += [i for c in ("patient_id", "accession") if c in codes for i in codes[c]]
    known = telling({one_spelling(i) for i in headers} | set(tables))
    rows, hits, left_out, patients, studies, own = [], [], [], {}, {}, {}
    if n_unread:
        left_out.append(("", f"{n_unread} files are no readable DICOM"))
    for uid, (header, files) in tqdm(found.items(), desc="studies"):
        accession = one_spelling(header.get("AccessionNumber", ""))
        patient = one_spelling(header.get("PatientID", ""))
        study_id = "S" + hashed(key, "study", uid)
        if not patient or accession in shared:
            why = "no patient id in its headers" if not patient else SHARED
            left_out.append((study_id, why))
            continue
        own[study_id] = own_words(header)
        patients[patient] = patient_id = "P" + hashed(key, "patient", patient)
        own.setdefault(patient_id, []).extend(own[study_id])
        if accession:
            studies[accession] = study_id
        said = reports.loc[accession] if accession and accession in reports.index else {}
        texts, part = _texts(said, own[study_id], known, study_id, redacts)
        hits += part
        if any(taken == "study withheld" for *_, taken in part):
            left_out.append((study_id, WITHHELD))
            continue
        path = Path(out) / "volumes" / f"{study_id}.nii.gz"
        if not path.exists():  # else an interrupted call wrote it whole
            try:
                volume = _read_study(files, load_volume)
            except (UnreadableScan, OSError) as error:
                reason = str(error).split(": ", 1)[-1]
                left_out.append((study_id, redact(reason, [*own[study_id], uid])[:300]))
                continue
            save(path, volume)  # a full disk ends the call, which then resumes; no study is lost
        place = int(hashed(key, "split", patient, 8), 16) % 5
        rows.append(
            dict(study_id=study_id, patient_id=patient_id, site="internal",
                 split={3: "val", 4: "test"}.get(place, "train"),
                 volume=f"volumes/{study_id}.nii.gz", **_about(header, key, patient), **texts)
        )  # fmt: skip
    manifest = pd.DataFrame(rows)
    made = Cohort(
        manifest,
        _coded(codes, key, patients, studies, set(manifest.get("study_id", ()))),
        pd.DataFrame(hits, columns=["study_id", "column", "kind", "n", "taken"]),
        pd.DataFrame(left_out, columns=["study_id", "reason"]),
        n_unreported=sum(not (r["findings"] or r["impression"]) for r in rows),
        n_unused=int((~reports.index.isin(list(studies))).sum()),
    )
    _refuse_leaks(made, known, {i for i in (*patients, *studies) if len(i) > 3}, own)
    return made


WITHHELD = "its report names the patient, or a number of another study; mend it, or use --redact"
SHARED = "its accession number is that of another study too: no telling whose report is whose"


def _spelled(reports, codes):
    """Both tables with ids in one spelling; reports by accession, rows without one left out."""
    reports = reports.assign(accession=reports["accession"].map(one_spelling))
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
    numbers = pd.Series([one_spelling(h.get("AccessionNumber", "")) for h, _ in found.values()])
    return set(numbers[numbers.duplicated() & (numbers != "")])


def _texts(said, own, known, study_id, redacts):
    """A study's report as it may leave, and what was found in it."""
    texts, hits = {"findings": "", "impression": ""}, []
    for column in texts:
        text = str(said.get(column, "") or "")
        others = [
            i for i in identifiers_in(text, known) if not any(_pattern(w).search(i) for w in own)
        ]
        found = scan_text(text, own)
        if others:
            found["number of another study"] = len(others)
        names = {"own identifier", "number of another study"} & set(found)
        taken = "replaced" if redacts else "study withheld" if names else "kept"
        hits += [(study_id, column, kind, n, taken) for kind, n in found.items()]
        texts[column] = redact(text, [*own, *others]) if redacts else text
    return texts, hits


def _require_columns(reports, codes):
    problems = [f"reports: no column {c}" for c in REPORT_COLUMNS if c not in reports]
    if codes is not None:
        problems += [f"codes: no column {c}" for c in CODE_COLUMNS if c not in codes]
    if problems:
        raise Refused("; ".join(problems))


def _read_study(files, load):
    """Files of one study may lie among others': read them through a folder of links."""
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(files):
            (Path(folder) / f"{i:06d}.dcm").symlink_to(file.resolve())
        return load(folder)


def _about(header, key, patient):
    sex = str(header.get("PatientSex", ""))[:1].upper()
    age = _age(header)
    date = pd.to_datetime(str(header.get("StudyDate", "")), format="%Y%m%d", errors="coerce")
    moved = date + pd.Timedelta(days=shift_days(key, patient))
    return dict(
        sex=sex if sex in "FM" else "",
        age="" if age is None else str(min(age, MAX_AGE)),
        date="" if pd.isna(date) else moved.date().isoformat(),
        manufacturer=_unless_own(str(header.get("Manufacturer", "")), own_words(header)),
    )


def _unless_own(text, words):
    """The text, or nothing where it holds one of the patient's own words."""
    return "" if any(_pattern(w).search(text) for w in words) else text


def _age(header):
    match = re.fullmatch(r"(\d{3})Y", str(header.get("PatientAge", "")))
    if match:
        return int(match[1])
    born, seen = (
        pd.to_datetime(str(header.get(t, "")), format="%Y%m%d", errors="coerce")
        for t in ("PatientBirthDate", "StudyDate")
    )
    return None if pd.isna(born) or pd.isna(seen) else int((seen - born).days / 365.25)


def _coded(codes, key, patients, studies, kept):
    from merlin.cohort.ehr import NO_CODES

    if codes is None:
        return NO_CODES
    codes = codes[codes["patient_id"].isin(patients)]
    date = pd.to_datetime(codes["date"], errors="coerce")
    moved = date + pd.to_timedelta([shift_days(key, p) for p in codes["patient_id"]], unit="D")
    at = codes["accession"].map(studies) if "accession" in codes else pd.Series("", codes.index)
    at = at.fillna("")
    return pd.DataFrame(
        {
            "patient_id": codes["patient_id"].map(patients),
            "study_id": at.where(at.isin(kept), ""),
            "date": moved.dt.date.astype(str).replace("NaT", ""),
            "vocabulary": codes["vocabulary"],
            "code": codes["code"],
        }
    ).reset_index(drop=True)


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
        columns = table.columns.difference(["study_id", "patient_id", "volume", "date"])
        for key, rows in table.groupby(whose):
            # A short number may be an age, any number a code.
            words = [
                w
                for w in dict.fromkeys(own.get(key, ()))
                if not w.isdigit() or (len(w) > 3 and name != "codes")
            ]
            patterns = [_pattern(w) for w in words]
            for column in columns:
                text = "\n".join(rows[column].unique())
                if any(p.search(text) for p in patterns):
                    raise Refused(
                        f"{name}, column {column}, {whose} {key}: holds a name, number or birth date "
                        "of its patient"
                    )
