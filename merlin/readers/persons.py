"""Who is looked for in a report: the persons of a study's headers and table rows, as folded words."""

import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from merlin.readers.patterns import (
    JOINED,
    decoded_again,
    find_patterns,
    fold,
    meet,
    read_text,
    vocabulary,
)

LONGEST = 6  # words that are tried as one name: de la Peña y Díaz
# Besides every element that holds a person's name: what tells a patient, and what else names one.
NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
         "ResponsiblePerson")  # fmt: skip
# What `said_in` finds in descriptions, comments, histories and private elements.
NUMBER_IN_TEXT, NAME_IN_TEXT = "number in a text", "name in a text"
NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "MedicalRecordLocator", "AdmissionID",
           "ServiceEpisodeID", "StudyID", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
           "RequestedProcedureID", "ScheduledProcedureStepID", "PerformedProcedureStepID",
           "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
           "PatientTelephoneNumbers", "PatientTelecomInformation", "PersonTelephoneNumbers",
           "PersonTelecomInformation", "OrderCallbackPhoneNumber", "OrderCallbackTelecomInformation")  # fmt: skip
BIRTHS, ADDRESSES = ("PatientBirthDate",), ("PatientAddress", "PersonAddress")
# Columns of the tables that do the same, by what is in their names.
COLUMNS = {
    "births": r"birth|dob|^geb|naiss|nacim|nasc",
    "addresses": r"address|adresse|street|direccion|endereco",
    "numbers": r"mrn|ssn|nhs|phone|telef|insur|record|patient(id|n(o|r|um))",
    "others": r"physician|doctor|radiolog|author|signed|signature|reader|readby|operator|surgeon|referr"
    r"|attending|resident|technolog|provider|arzt|befunder|zuweis|medecin|medico|lekar|hekim|lakar|^lege",
    "names": r"^first$|^last$|maiden|kin$|contact(name)?$|mother|father|spouse|guardian"
    r"|name|naam|namn|navn|nom(bre|e)?$|prenom|apellid|cognome|nazwisk|imie|jmeno|prijmeni|famil"
    r"|^given|ime$|姓|氏名|名前|이름|성명|^patient(in)?$",
}
# Those that are so whatever else the name says (reporting_radiologist, Hospital No), but for free text.
SURE = {
    "others": r"radiologist|physician|doctor|author|consultant|clinician|nurse|fellow|surgeon|attending"
    r"|technologist|resident|cosign|approver|(ed|en|read)by$",
    "numbers": r"(hospital|file|chart|case|pat|patient|admission|visit|encounter|episode)(no|nr|num|number|id)$"
    r"|nummer$|csn$|healthcard|mobile|cell(phone)?$|^tel$|^fax",
}
NO_NAMES = r"comment|text|note|finding|impression|history|date|time|code|depart|special"
NO_PERSONS = (
    r"file|hospital|site|institution|station|scanner|code|diagnos|disease|study|series|organ|device|model"
    r"|report|text|comment|note|finding|impression|history|depart|protocol|drug|phe"
)


@dataclass(frozen=True)
class Words:
    """What is looked for, folded.

    Attributes
    ----------
    names : frozenset of str
        Parts of names, and their runs without blanks: of Testa-Lorenz testa, lorenz, testalorenz.
    joined : frozenset of str
        The same in scripts without blanks, of two signs and more.
    numbers : frozenset of str
        Capitals and digits only, without leading zeros.
    births : frozenset of (int, int, int)
        Year, month, day.
    """

    names: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    births: frozenset[tuple[int, int, int]] = frozenset()

    def __or__(self, other: "Words") -> "Words":
        """What either holds."""
        return Words(
            self.names | other.names, self.joined | other.joined,
            self.numbers | other.numbers, self.births | other.births,
        )  # fmt: skip

    @functools.cached_property
    def stems(self) -> frozenset[str]:
        """Names without the part that endings replace: Kowalsk-, Novakov-, Mark- of Marek."""
        cut = {n[:-1] for n in self.names if len(n) > 4 and n[-1] in "aeiouy"}
        cut |= {
            n[:-2] for n in self.names if len(n) > 6 and n[-2:] in ("as", "is", "us", "os", "es")
        }
        fleeting = {n[:-2] + n[-1] for n in self.names if len(n) > 4 and n[-2] in "eo"}
        return frozenset(cut | {n for n in fleeting if n[-1] in "kclrn"})

    @functools.cached_property
    def openings(self) -> frozenset[str]:
        """First letters of names: a run of words that begins otherwise need not be looked up."""
        return frozenset(n[:4] for n in self.names | self.stems)


NOBODY = Words()


@dataclass(frozen=True)
class Sought:
    """Who is looked for in a report.

    Attributes
    ----------
    own, others : Words
        Of its patient, and of other persons in the headers and table rows of the study.
    everybody : Words
        Names in the headers and rows of all studies.
    common : frozenset of str
        From `common_words`.
    numbers : frozenset of str
        Record numbers of everybody, from `normal_number`.
    """

    own: Words = NOBODY
    others: Words = NOBODY
    everybody: Words = NOBODY
    common: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()


def words_of(
    names: Iterable[str] = (),
    numbers: Iterable[str] = (),
    births: Iterable[str] = (),
    addresses: Iterable[str] = (),
) -> Words:
    """Words of one person.

    Parameters
    ----------
    names : iterable of str
        In DICOM's form, `family^given^middle^prefix^suffix=ideographic=phonetic`, or any other.
    numbers : iterable of str
        Record, accession, telephone numbers. One without a digit is taken for a name.
    births : iterable of str
        Dates of birth, YYYYMMDD or as people write them.
    addresses : iterable of str
        Streets and towns: looked for whole.
    """
    names, numbers = list(names), list(numbers)
    names += [n for n in numbers if not re.search(r"\d", n)]
    numbers = [n for n in [*numbers, *names] if re.search(r"\d", n)]
    found, joined = set(), set()
    groups = [g for n in names for g in decoded_again(n).split("=")]
    for group in [*groups, *(g for n in groups for g in _read_otherwise(n))]:
        parts, signs = _name_parts(group)
        found |= parts
        joined |= signs
    for line in re.split(r"[\^,;=\n]", "\n".join(addresses)):
        whole = meet("".join(w.letters for w in read_text(line).words))
        found |= {whole} if len(whole) > 5 else set()
    days = {r for b in births for *_, said in read_text(str(b)).dates for r in said if all(r)}
    # 1000677^^^HOSP is 1000677 of HOSP, and MRN0012345 is written 12345.
    plain = {normal_number(part) for n in numbers for part in (n, n.partition("^")[0])} - {""}
    bare = {p.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ").lstrip("0") for p in plain}
    plain |= {b for b in bare if b.isdigit() and len(b) > 4}
    return Words(frozenset(found), frozenset(joined), frozenset(plain), frozenset(days))


def _name_parts(group: str) -> tuple[set[str], set[str]]:
    """Names of one writing of a person: in Latin and other letters with blanks, and in joined signs."""
    said, found, signs = vocabulary(), set(), []
    for component in re.split(r"[\^,;\\/]", group):
        read = read_text(component)
        signs += re.findall(f"[{JOINED}]+", read.plain)
        words = [
            w.letters for w in read.words if not re.match(f"[{JOINED}]", w.letters or JOINED[0])
        ]
        words = [w for w in words if w not in said["placeholders"]]
        words = [w for w in words if w not in said["titles"] | said["dotted"]] or words
        # Lê and Đỗ are families, too, where nothing else is.
        no_name = set() if set(words) <= said["particles"] else said["particles"]
        for i in range(len(words)):
            for j in range(i + 1, min(i + LONGEST, len(words)) + 1):
                if words[j - 1] not in no_name:
                    found.add(meet("".join(words[i:j])))
    whole = ["".join(signs)] if len(signs) > 1 else []
    if len(signs) == 1:  # family and given name in one: 김철수, 山田太郎
        whole = {3: [signs[0][1:]], 4: [signs[0][:2], signs[0][2:]]}.get(len(signs[0]), [])
    honours = [s + h for s in signs if len(s) == 1 for h in said["honorifics"]]
    joined = {fold(s) for s in [*signs, *whole] if len(s) > 1} | set(map(fold, honours))
    return {f for f in found if len(f) > 1}, joined


# Of headers whose bytes are not in the character set that they declare, or that declare none.
_PAGES = (
    "cp1252 cp1254 cp1250 iso8859-2 cp1251 iso8859-5 koi8-r cp1253 cp1255 cp1256 cp874 cp850 mac_roman"
    " gb18030 shift_jis euc_kr big5"
).split()


def _read_otherwise(name: str) -> set[str]:
    """A name that was read as Latin-1, in each code page that makes every word letters of one script."""
    try:
        said = name.encode("latin-1")
    except UnicodeError:
        return set()
    found = set()
    for page in () if name.isascii() else _PAGES:
        try:
            read = said.decode(page)
        except UnicodeError:
            continue
        foreign = [c for c in read if not (c.isascii() or c.isspace())]
        words = re.split(r"[\s^,.'-]+", read)
        is_split = any(a.islower() and b.isupper() and not b.isascii() for a, b in pairwise(read))
        if (
            not is_split
            and all(_script(c) for c in foreign)
            and all(len({_script(c) for c in w if not c.isdigit()}) < 2 for w in words)
        ):
            found.add(read)
    return found - {name}


def _script(sign):
    if not (sign.isalpha() or unicodedata.category(sign)[0] == "M"):
        return ""
    script = unicodedata.name(sign, "").split(" ")[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA") else script


def is_unreadable(said: Iterable[tuple[str, str]]) -> bool:
    """Whether a header's name has lost signs: `M?ller`, `???`, U+FFFD."""
    kept = (*NUMBERS, *BIRTHS, *ADDRESSES, NUMBER_IN_TEXT, NAME_IN_TEXT)
    return any(k not in kept and re.search(r"\ufffd|\?\?|\w\?|\?\w", v) for k, v in said)


def normal_number(number: str) -> str:
    """A record number's capitals and digits alone, without leading zeros."""
    kept = "".join(c for c in read_text(str(number)).plain.upper() if c.isalnum())
    return kept.lstrip("0") if kept.isdigit() else kept


TEXTS = ("LO", "SH", "LT", "ST", "UT", "UC", "UR", "UN")
_PRIVATE = (None, "CS", "AE", "DS", "IS")  # whose vendors keep no rule


def said_in(header):
    """Keyword and value of all that names a person or is one's number in a header.

    Every element counts that holds a person's name or is one of the keywords above, in any sequence.
    Other texts, private ones too, are no names: from them, what a report would be searched for as well
    (names after a title or with carets, long and telephone numbers) comes as `NAME_IN_TEXT` and
    `NUMBER_IN_TEXT`.
    """
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    from merlin.data.dicom import parts_of

    found = set()
    for part, tag in ((p, t) for p in parts_of(header) for t in p.keys()):
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


def _values(element):
    """Texts of an element, of bytes those that can be read."""
    values = [element.value] if element.VM < 2 else element.value
    for v in values:
        text = v.decode("latin-1") if isinstance(v, bytes) else str(v) if v is not None else ""
        if text := text.strip(" \0"):
            yield text


_CARETS = re.compile(r"[^\W\d_][\w'-]{1,30}\^[^\W\d_][\w' ^-]{0,60}")


@functools.lru_cache(2**14)
def _in_text(text):
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


_LABELLED = re.compile(r"^\D{0,40}[ .:#-]")  # MRN: 12345


def words_said(said, *, own):
    """Words of the patient, or of all other persons, from what headers say."""
    of = lambda keywords: sorted(v for k, v in said if k in keywords)  # noqa: E731
    if own:
        numbers = of((*NUMBERS, NUMBER_IN_TEXT))
        return words_of(of(NAMES), numbers, of(BIRTHS), of(ADDRESSES))
    patients = (*NAMES, *NUMBERS, *BIRTHS, *ADDRESSES, NUMBER_IN_TEXT)
    return words_of(v for k, v in said if k not in patients)


def columns_of(table, but=()) -> dict[str, list[str]]:
    """Columns of a table whose names speak of persons, by kind; `but` are not looked at."""
    kinds: dict[str, list[str]] = {}
    for column in sorted(set(table.columns) - set(but)):
        said = fold(str(column))
        for patterns, vetoes in ((SURE, NO_NAMES), (COLUMNS, NO_PERSONS)):
            kind = next((k for k, pattern in patterns.items() if re.search(pattern, said)), None)
            if kind and not re.search(vetoes, said):
                kinds.setdefault(kind, []).append(column)
                break
    return kinds


def people_in(table, by: str, but=()) -> dict[str, tuple[Words, Words]]:
    """Persons in the rows of a table.

    Parameters
    ----------
    table : DataFrame of str
        Columns whose names speak of persons, numbers or birth dates (`COLUMNS`) are read.
    by : str
        Column of the key.
    but : iterable of str
        Columns that are not read.

    Returns
    -------
    dict of str to (Words, Words)
        The patient's and other persons', by key.
    """
    kinds = columns_of(table, (by, *but))
    found: dict[str, tuple[Words, Words]] = {}
    cells = {k: table[c].fillna("").astype(str).to_numpy() for k, c in kinds.items()}
    for i, key in enumerate(table[by] if kinds else ()):
        # A cell of many words is no name, whatever its column is called.
        row = {k: [v for v in values[i] if 0 < len(v.split()) < 9] for k, values in cells.items()}
        others = words_of(row.pop("others", ()))
        own, before = words_of(**row), found.get(key, (NOBODY, NOBODY))
        found[key] = (before[0] | own, before[1] | others)
    return found
