"""What a study's DICOM headers say: whose it is, which persons they name, and what of it may leave."""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag

from merlin.data import dicom, dicom_pixels
from merlin.data.cells import SEXES, TableError, read_ages
from merlin.readers.folding import vocabulary
from merlin.readers.patterns import find_patterns, read_text
from merlin.readers.persons import SAID, Words, words_of

TAGS = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
        "PatientAge", "AccessionNumber", "StudyDate", "Manufacturer")  # fmt: skip
QUOTED = ("Modality", "ImageType", "RescaleType")  # by the reader's refusals
NAMES, NUMBERS, BIRTHS, ADDRESSES = (
    tuple(SAID["headers"][k].split()) for k in ("names", "numbers", "births", "addresses")
)
# What `said_in` finds in descriptions, comments, histories and private elements.
NUMBER_IN_TEXT, NAME_IN_TEXT = "number in a text", "name in a text"
TEXTS = ("LO", "SH", "LT", "ST", "UT", "UC", "UR", "UN")
_PRIVATE = (None, "CS", "AE", "DS", "IS")  # whose vendors keep no rule
MAX_AGE = 90  # older patients are written as 90
MAKERS = {m.casefold(): m for m in SAID["makers"]}


class File(NamedTuple):
    """One DICOM file: its series, and why it may show more than a body (`dicom.shows_more`)."""

    path: Path
    series: str
    shows: str


@dataclass(frozen=True)
class Study:
    """One study of a tree.

    Attributes
    ----------
    header : Dataset
        `TAGS` of its first file.
    files : list of File
    said : set of (str, str)
        Keyword and value of all that names a person or is one's number, in any of its files.
    quoted : set of str
        Words of its headers that a refusal of the reader may quote.
    """

    header: pydicom.Dataset
    files: list[File]
    said: set[tuple[str, str]]
    quoted: set[str]

    def add(self, other: "Study") -> None:
        """Take another file's facts in; the header stays the first one's."""
        self.files.extend(other.files)
        self.said.update(other.said)
        self.quoted.update(other.quoted)

    @property
    def kept(self) -> list[Path]:
        """Files of series in which no image may show more than a body."""
        behind = {f.series for f in self.files if f.shows}
        return [f.path for f in self.files if f.series not in behind]

    @property
    def ids(self) -> tuple[str, str]:
        """Accession number and patient id in one spelling; empty where there is none."""
        accession, patient = (self.header.get(t, "") for t in ("AccessionNumber", "PatientID"))
        return one_spelling(accession), one_spelling(patient)


def one_spelling(identifier: object) -> str:
    """An id as every table and header is made to spell it: no blanks around it, capitals."""
    said = str(identifier).strip().upper()
    number = said.partition("^")[0]  # 1000677^^^HOSP, as HL7 writes it
    return number.strip() if any(c.isdigit() for c in number) else said


def read_header(path: Path) -> Study | None:
    """The study of one file, or None where it is no DICOM or names none."""
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
    file = File(path, series, dicom.shows_more(header))
    return Study(facts, [file], said_in(header), quoted)


def said_in(header: pydicom.Dataset) -> set[tuple[str, str]]:
    """Keyword and value of all that names a person or is one's number in a header.

    Every element counts that holds a person's name or is one of the keywords above, in any sequence.
    Other texts, private ones too, are no names: from them, what a report would be searched for as well
    (names after a title or with carets, long and telephone numbers) comes as `NAME_IN_TEXT` and
    `NUMBER_IN_TEXT`.
    """
    found: set[tuple[str, str]] = set()
    for part, tag in ((p, t) for p in dicom.parts_of(header) for t in p.keys()):
        keyword, vr = keyword_for_tag(tag), part.get_item(tag).VR
        if vr is None and keyword:  # the file leaves it to the dictionary
            vr = dictionary_VR(tag)
        if vr == "PN" or keyword in NUMBERS + BIRTHS + ADDRESSES:
            found |= {(keyword, v) for v in _values(part[tag])}
        elif vr in TEXTS or (tag.is_private and vr in _PRIVATE):
            is_protocol = "Description" in keyword or "Protocol" in keyword  # Abdomen^Routine
            for value in _values(part[tag]):
                found |= {p for p in _in_text(value) if not (is_protocol and "^" in p[1])}
    return found


def _values(element: pydicom.DataElement) -> Iterator[str]:
    """Texts of an element, of bytes those that can be read."""
    values = [element.value] if element.VM < 2 else element.value
    for v in values:
        text = v.decode("latin-1") if isinstance(v, bytes) else str(v) if v is not None else ""
        if text := text.strip(" \0"):
            yield text


_CARETS = re.compile(r"[^\W\d_][\w'-]{1,30}\^[^\W\d_][\w' ^-]{0,60}")
_LABELLED = re.compile(r"^\D{0,40}[ .:#-]")  # MRN: 12345


@functools.lru_cache(2**14)
def _in_text(text: str) -> frozenset[tuple[str, str]]:
    """Names and numbers of persons in a text of a header."""
    read = read_text(text[:10_000])
    ordinary = vocabulary()["ordinary"]
    found = set()
    for m in _CARETS.finditer(read.plain):
        if not any(w.letters in ordinary for w in read_text(m[0]).words):
            found.add((NAME_IN_TEXT, m[0]))
    for start, end, kind in find_patterns(read):
        said = read.plain[start:end]
        if kind in ("titled name", "signature"):
            found.add((NAME_IN_TEXT, said))
        elif kind in ("telephone", "long number") and not re.fullmatch(r"[\d.]+\.[\d.]+", said):
            found.add((NUMBER_IN_TEXT, _LABELLED.sub("", said)))
    return frozenset(found)


def words_said(said: Iterable[tuple[str, str]], *, own: bool) -> Words:
    """Words of the patient, or of all other persons, from what headers say."""
    of = lambda keywords: sorted(v for k, v in said if k in keywords)  # noqa: E731
    if own:
        numbers = of((*NUMBERS, NUMBER_IN_TEXT))
        return words_of(of(NAMES), numbers, of(BIRTHS), of(ADDRESSES))
    patients = (*NAMES, *NUMBERS, *BIRTHS, *ADDRESSES, NUMBER_IN_TEXT)
    return words_of(v for k, v in said if k not in patients)


def is_unreadable(said: Iterable[tuple[str, str]]) -> bool:
    """Whether a header's name has lost signs: `M?ller`, `???`, U+FFFD."""
    kept = (*NUMBERS, *BIRTHS, *ADDRESSES, NUMBER_IN_TEXT, NAME_IN_TEXT)
    return any(k not in kept and re.search(r"\ufffd|\?\?|\w\?|\?\w", v) for k, v in said)


def about(header: pydicom.Dataset, days: int) -> dict[str, str]:
    """What of a header leaves: sex, age, the date moved by some days, and the maker if it is a known one."""
    age, date = _age(header), _day(header, "StudyDate")
    maker = re.search(rf"(?i)\b({'|'.join(MAKERS)})\b", str(header.get("Manufacturer", "")))
    return dict(
        sex=SEXES.get(str(header.get("PatientSex", "")).strip().casefold(), ""),
        age="" if age is None else str(min(age, MAX_AGE)),
        date="" if pd.isna(date) else (date + pd.Timedelta(days=days)).date().isoformat(),
        manufacturer=MAKERS[maker[1].casefold()] if maker else "",
    )


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
