"""A report as folded words, and what in it may name a person or a day whoever they are.

Dates, telephone and other long numbers, addresses of mail, titles and signatures with the name that
follows: each is counted, none is proof. The word lists are in `names.yaml`.
"""

import functools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import yaml

# Chinese, kana, Thai, Lao, Burmese, Khmer, Hangul: no blank tells where a name begins or ends.
JOINED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc"
    "\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{JOINED}]+|(?:(?![{JOINED}])[^\W\d_])+")
_APOSTROPHES = "'’‘‛ʼʻˈ`´′＇׳ʹ"
# Letters that Unicode does not take apart; Cyrillic and Greek as passports write them.
_LETTERS = str.maketrans(
    dict(zip("øıðđħłŋſəабвгдезиклмнопрстуфыэіјћђѓґєќαβγδεζηικλμνοπρσςτυφω",
             "oiddhlnsaabvgdeziklmnoprstufyeijcdggekabgdeziiklmnoprsstyfo", strict=True))
    | {"æ": "ae", "œ": "oe", "ß": "ss", "þ": "th", "ж": "zh", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh",
       "щ": "shch", "ъ": "", "ь": "", "ю": "iu", "я": "ia", "љ": "lj", "њ": "nj", "џ": "dz",
       "θ": "th", "ξ": "x", "χ": "ch", "ψ": "ps",
       "ة": "ه", "ى": "ي", "ـ": ""}
    | {chr(c): chr(c - 0x60) for c in range(0x30A1, 0x30F7)}  # katakana as hiragana
)  # fmt: skip
_ALIKE = str.maketrans("авекмнорстухѕјһԁ", "abekmhopctyxsjhd")
DELETED = "<DELETED>"
_ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018}


class Word(NamedTuple):
    """A run of letters: its place in the plain text, folded letters, and is it Title, UPPER or lower."""

    start: int
    end: int
    letters: str
    shape: str


class Span(NamedTuple):
    """Where something was found, and what."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Text:
    """A text with plain signs, its words, and the place of each sign in the text as given."""

    plain: str
    places: list[int] | None
    words: list[Word]
    is_shouted: bool

    def gap(self, i: int) -> str:
        """What stands between a word and the next."""
        return self.plain[self.words[i].end : self.words[i + 1].start]

    @functools.cached_property
    def dates(self) -> list[tuple[int, int, set[tuple[int, int, int]]]]:
        """`dates_in` of the plain text."""
        return list(dates_in(self))

    @functools.cached_property
    def titled(self) -> list[tuple[int, int, int]]:
        """Word numbers of titles, and of the first and last word of the name after each."""
        return list(_titled(self))

    def before(self, i: int) -> str:
        """Up to twelve signs before a word."""
        start = self.words[i].start
        return self.plain[max(start - 12, 0) : start]

    def spans(self, found: list[Span]) -> list[Span]:
        """The same spans in the text as given."""
        if self.places is None:
            return found
        return [Span(self.places[s.start], self.places[s.end - 1] + 1, s.kind) for s in found]


@functools.cache
def vocabulary() -> dict[str, frozenset[str]]:
    """Lists of `names.yaml` as sets of folded words; `months` maps each to its number."""
    lists = yaml.safe_load(Path(__file__).with_name("names.yaml").read_text(encoding="utf-8"))
    months = {fold(w): n for n, line in enumerate(lists.pop("months"), 1) for w in line.split()}
    folded = {k: frozenset(fold(w) for w in v.split()) for k, v in lists.items()}
    met = {f"met {k}": frozenset(map(meet, folded[k])) for k in ("ordinary", "eponyms", "endings")}
    return folded | met | {"months": months}


@functools.lru_cache(2**18)
def fold(word: str) -> str:
    """A word's bare letters: no case, no accents, no width; Latin for Cyrillic and Greek."""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", word).casefold())
    if re.search("[a-z]", apart) and not apart.isascii():  # one foreign letter that looks the same
        apart = apart.translate(_ALIKE)
    return "".join(
        c for c in apart.replace("ου", "ou").replace("γγ", "ng").translate(_LETTERS) if c.isalpha()
    )


@functools.lru_cache(2**18)
def meet(letters: str) -> str:
    """Folded letters with one spelling of ä, ö, ü, å and of long vowels: ae, aa are a; oe, ou, oh o; yu iu."""
    if len(letters) < 4:  # Doe is not Do
        return letters
    letters = re.sub(r"y(?=[au])", "i", letters)  # Yuri, Iurii
    return re.sub(r"a[ae]+|o[eouh]+|u[eu]+|i[iy]+", lambda m: m[0][0], letters)


@functools.cache
def _plain(sign: str) -> str:
    """A sign's plain kin, of one sign, or none for what is not seen or rides on another sign."""
    kind = unicodedata.category(sign)
    if kind[0] == "M" or kind == "Cf" or sign in "\uff9e\uff9f":
        return ""
    if sign in _APOSTROPHES:
        return "'"
    if kind == "Pd" or sign in "−⁃‧":
        return "-"
    if kind == "Zs":
        return " "
    if kind == "Nd":
        return str(unicodedata.digit(sign))
    plain = unicodedata.normalize("NFKC", sign)
    return plain if len(plain) == 1 and plain.isascii() else sign


def decoded_again(text: str) -> str:
    """The text with UTF-8 that was read as another encoding (MÃ¼ller) read as UTF-8."""

    def decoded(match):
        for encoding in ("cp1252", "latin-1"):
            try:
                return match[0].encode(encoding).decode("utf-8")
            except UnicodeError:
                pass
        return match[0]

    return re.sub(r"[^\x00-\x7f]+", decoded, text)


def _in_page(page):
    """Signs of Windows-1252 and what their bytes are in another code page."""
    pairs = ((bytes([b]).decode("cp1252", "ignore"), bytes([b]).decode(page, "ignore"))
             for b in range(128, 256))  # fmt: skip
    return str.maketrans({a: b for a, b in pairs if a and b.isalpha()})


_PAGES = [_in_page("cp1254"), _in_page("cp1250")]


def in_other_pages(text: str) -> set[str]:
    """The text, and what it says if it was Turkish or Czech read as Windows-1252; signs keep their places."""
    return {text} if text.isascii() else {text, *(text.translate(page) for page in _PAGES)}


def read_text(text: str) -> Text:
    """A text's plain signs and words."""
    places, plain = None, text
    if not text.isascii():
        kept = [(i, p) for i, sign in enumerate(text) if (p := _plain(sign))]
        places, plain = [i for i, _ in kept], "".join(p for _, p in kept)
    words = []
    for match in _WORD.finditer(plain):
        word, at = match[0], match.start()
        if word.islower() or word.isupper() or word[1:].islower():
            cuts = [0, len(word)]
        else:  # a blank may be lost: MrsLorenz; names are looked up over such cuts, too
            inside = range(1, len(word))
            cuts = [
                k
                for k in inside
                if word[k].isupper()
                and (word[k - 1].islower() or word[k + 1 : k + 4][2:].islower())
            ]
            cuts = [0, *cuts, len(word)]
        for a, b in pairwise(cuts):
            part = word[a:b]
            upper = part.isupper() and (len(part) > 1)
            shape = "lower" if part[0].islower() else "upper" if upper else "title"
            words.append(Word(at + a, at + b, fold(part), shape))
    n_upper = sum(w.shape == "upper" for w in words)
    return Text(plain, places, words, len(words) > 3 and n_upper > 0.7 * len(words))


_NUMBERS = {  # kind: (pattern, digits that it must have)
    "telephone": [
        (r"(?<![\d.])(?:\+?\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?!\d)", 10),
        (r"(?<![\w.])\+\d{1,3}(?:[ ()./-]{0,3}\d{1,5}){2,6}(?!\d|\.\d)", 8),
        (r"(?<![\w.,])\(?0\d{1,5}\)?(?:[ ./-]{1,3}\d{2,8}){1,5}(?!\d|\.\d)", 8),
        (
            r"\b(?i:tele?(?:phone|fon)?|t[eé]l|fone?|phone|fax|pager|beeper|ext|handy|mobile?|call"
            r"(?: back)?)\b[ .:#]{1,4}(?:at |no\.? |nr\.? )?[(+]?\d(?:[ ()./-]{0,3}\d){2,14}",
            3,
        ),
    ],
    "e-mail": [(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}", 0)],
    "web address": [(r"\b(?:https?://|www\.)[^\s<>\"]{3,300}", 0)],
    "long number": [
        (r"(?<![\w.])[A-Za-z]{0,4}-?\d{7,}[A-Za-z]?\b", 7),
        (r"\b\d{3}-\d{2}-\d{4}\b", 9),  # social security, USA
        (r"(?<![\d.,])\d{1,4}(?:[ -]\d{2,4}){2,5}(?![\d.,]|\s?(?:mm|cm|x\b|HU))", 9),
        (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b", 8),  # bank accounts
        (r"(?<![\w.])\d+(?:\.\d+){5,}\b", 8),  # DICOM UIDs
        (
            r"\b(?i:mrn|pid|pat(?:ient)?(?:en)?[ .-]{0,2}(?:id|nr|no|number)|acc(?:ession)?(?: (?:no|number))?"
            r"|case (?:no|number)|fall-?nr|ssn|nhs|nip|pesel|dni|cpf|insurance|versicherten\w{0,12})"
            r"[ .:#-]{1,4}[A-Za-z]{0,4}\d(?:[ ./-]?\w?\d){3,15}",
            4,
        ),
    ],
    "age over 89": [
        (
            r"\b(?:9\d|1[01]\d)(?:[ -]{0,2})(?i:years?|yrs?|y(?:\.?[/ ]?o\b\.?)?|jahre?|jährige?r?|jaehrige?r?|ans|años"
            r"|anos|anni|lat|let|år|jaar|vuotta|éves|yaşında|лет|歳|岁|세)(?!\w)",
            2,
        ),
        (r"\b(?i:aged?)[ :]{1,2}(?:9\d|1[01]\d)(?!\d|[.,-]\d| ?%)", 2),
        (r"(?<![\w.,-])(?:9\d[/-]?[MF]|1[01]\d[/-]?M)\b", 2),  # 101F is a fever
        (r"\b(?i:aged? ninety(?:[ -]\w{3,5})?|ninety(?:[ -]\w{3,5})?[ -]years?)\b", 0),
    ],
    "date": [
        (r"(?<=\b[Bb]orn )(?:in )?(?:19|20)\d\d\b", 4),
        (r"(?<![\w.-])[SHR]\d{1,2}\.\d{1,2}\.\d{1,2}\b(?!\.\d)", 3),  # years of Japan's eras
    ],
}  # fmt: skip
_NUMBER_PATTERNS = [(k, re.compile(p), n) for k, rows in _NUMBERS.items() for p, n in rows]
_TIME = r"(?:(?:,? (?:at |um |à |kl\.? )?|T)\d{1,2}(?:[:h]\d{2}(?::\d{2})?(?: ?[ap]\.?m\b\.?| Uhr)?|\.\d{2} Uhr))?"
_DATED = "|".join(
    rf"(?<=\b{w} )"
    for w in "on,du,dated,since,yesterday,today,comparison:,ct of,ct from".split(",")
)
_MIXED = r"(?: ?[/.:\\_|,∕-] ?| )"
_DATES = [
    re.compile(p + _TIME)
    for p in (
        r"(?<![\d.])(?P<a>\d{1,2}) ?(?P<s>[/.-]) ?(?P<b>\d{1,2}) ?(?P=s) ?'?"
        r"(?P<y>(?:1[89]|20)\d\d|\d\d)(?!\d|\.\d| ?(?:mm|cm|ml|kV|HU|x\b))",
        rf"(?<![\d.])(?P<a>\d{{1,2}}){_MIXED}(?P<b>\d{{1,2}}){_MIXED}(?P<y>(?:19|20)\d\d)(?!\d| ?(?:mm|HU))",
        rf"(?<![\d.])(?P<y>(?:19|20)\d\d){_MIXED}(?P<b>0\d|1[0-2]){_MIXED}(?P<a>[0-3]\d)(?!\d)",
        r"(?<![\d.])(?P<y>(?:1[89]|20)\d\d) ?(?P<s>[/.-]) ?(?P<b>\d{1,2}) ?(?P=s) ?(?P<a>\d{1,2})(?!\d)",
        r"(?<![\d.])(?P<y>\d\d)(?P<s>[/.-])(?P<b>\d\d)(?P=s)(?P<a>\d\d)(?!\d|\.\d| ?(?:mm|cm|ml|kV|HU|x\b))",
        r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<b>0[1-9]|1[0-2])(?P<a>[0-3]\d)(?:\d{6})?(?!\d)",
        r"(?<!\d)(?P<a>[0-3]\d)(?P<b>0[1-9]|1[0-2])(?P<y>(?:19|20)\d\d)(?!\d)",
        rf"(?<!\d)(?P<e>{'|'.join(_ERAS)})?(?P<y>\d{{1,4}}) ?[年년] ?(?P<b>\d{{1,2}}) ?[月월]"
        r"(?: ?(?P<a>\d{1,2}) ?[日일])?",
        r"\b[Nn]g[aà]y (?P<a>\d{1,2}) th[aá]ng (?P<b>\d{1,2}) n[aă]m (?P<y>\d{4})",
        r"(?<![\d./-])(?P<b>0?[1-9]|1[0-2])[/.](?P<y>(?:19|20)\d\d)(?!\d)",
        r"(?<![\w./-])(?P<b>0[1-9]|1[0-2])-(?P<y>(?:19|20)\d\d)(?!\d|[-.]\d| ?(?:mm|cm|ml|HU|ms|%))",
        # Day and month alone are read as one only where a word before them says so.
        rf"(?i:{_DATED})(?P<b>\d{{1,2}})/(?P<a>\d{{1,2}})(?![\d/%]| of\b)",
        r"(?:(?<=\bam )|(?<=\bvom ))(?P<a>\d{1,2})\. ?(?P<b>\d{1,2})\.(?!\d)",
    )
]
_ORDINAL = r"(?:st|nd|rd|th|er|º|ª|\.|-?го)?"
_NO_MEASURE = r"(?![\d/]|[.,-]\d| ?(?i:mm|cm|ml|%|x\b|hu\b|kv))"
_WORD_DATES = [
    re.compile(p + _TIME)
    for p in (
        rf"(?<![\d.])(?P<a>\d{{1,2}}){_ORDINAL}[ ,./_-]{{0,2}}(?:de |of )?(?P<m>[^\W\d_]{{3,12}})(?:\.?[ ,'./_-]{{1,3}}"
        r"(?:de |del )?|(?=\d))(?P<y>(?:1[89]|20)\d\d|\d\d)(?!\d|\.\d| ?(?:mm|cm|ml|%|x\b))",
        r"(?P<m>\b[^\W\d_]{3,12})\.?[ ./_-](?P<a>\d{1,2})(?:st|nd|rd|th)?(?:, ?|[ ./_-])'?(?P<y>(?:1[89]|20)\d\d|\d\d)"
        r"(?!\d|[.,]\d| ?(?:mm|cm|ml|%|x\b))",
        r"(?<!\d)(?P<y>(?:1[89]|20)\d\d)(?:\. ?|[ /_-]?)(?P<m>[^\W\d_]{3,12})(?:\. ?|[ /_-]?)(?P<a>\d{1,2})(?!\d)",
        r"(?<![\d.])(?P<a>\d{1,2})[. ]{1,2}(?P<m>[IVX]{1,4})[. ]{1,2}(?P<y>(?:1[89]|20)\d\d)(?!\d)",
        r"(?P<m>\b[^\W\d_]{3,12})\.?,? (?:de |del )?(?P<y>(?:1[89]|20)\d\d)(?!\d)",
        r"(?P<m>\b[^\W\d_]{3,12})\.? (?P<a>\d{1,2})(?:st|nd|rd|th)\b",
        r"(?<![\d.])(?P<a>\d{1,2})(?:st|nd|rd|th|º|-?го)? (?:of |de )(?P<m>[^\W\d_]{3,12})\b",
        r"(?<![\d.])(?P<a>\d{1,2})\. (?P<m>[^\W\d_]{3,12})\b",
        # Bare: March 3, 14-Mar, 2015 Jan.
        rf"(?P<m>\b[^\W\d_]{{3,12}})\.?[ -](?P<a>\d{{1,2}})(?P<bare>){_NO_MEASURE}",
        r"(?<![\w./-])(?P<a>\d{1,2})[ -](?P<m>(?!May [a-z])[^\W\d_]{3,12})\b(?P<bare>)",
        r"(?<![\w./-])(?P<y>(?:19|20)\d\d)[ /-](?P<m>(?!May [a-z])[^\W\d_]{3,12})\b(?P<bare>)",
    )
]


def dates_in(text: Text) -> Iterator[tuple[int, int, set[tuple[int, int, int]]]]:
    """Start and end of each date, and the (year, month, day) that it may mean; 0 for what it leaves out."""
    if not re.search(r"\d", text.plain):
        return
    for pattern in _DATES:
        for m in pattern.finditer(text.plain):
            said = m.groupdict()
            a, b, y = (int(said.get(k) or 0) for k in "aby")
            year = y + _ERAS.get(said.get("e"), 0)
            readings = {(year, x, z) for x, z in ((b, a), (a, b)) if x <= 12 and z <= 31}
            if readings and (a or b):
                yield m.start(), m.end(), readings
    months = vocabulary()["months"]
    for word in text.words:
        if not (month := months.get(word.letters)):
            continue
        near = max(word.start - 10, 0), word.end + 24
        for m in (m for p in _WORD_DATES for m in p.finditer(text.plain, *near)):
            said = m.groupdict()
            day = int(said.get("a") or 0)
            # `may` and `mar` are words: without a year, the month needs its capital or more letters.
            is_month = said.get("y") or word.shape != "lower" or len(word.letters) > 3
            if "bare" in said:  # MAR reduces artefacts, OCT is another modality
                is_plain = len(word.letters) > 3 or word.letters not in ("mar", "may", "oct")
                is_month = word.shape == "title" or (word.shape == "upper" and is_plain)
                is_month = is_month and word.letters not in ("set", "out", "ago")
            if m.start("m") == word.start and day <= 31 and is_month:
                yield m.start(), m.end(), {(int(said.get("y") or 0), month, day)}


def find_patterns(text: Text) -> list[Span]:
    """All that may name a person or a day in a text, places in its plain signs."""
    spans = [Span(a, b, "date") for a, b, _ in text.dates]
    for kind, pattern, n_digits in _NUMBER_PATTERNS:
        for m in pattern.finditer(text.plain):
            if sum(c.isdigit() for c in m[0]) >= n_digits:
                spans.append(Span(m.start(), m.end(), kind))
    words = text.words
    spans += [Span(words[i].start, words[k].end, "titled name") for i, _, k in text.titled]
    spans += [Span(words[j].start, words[k].end, "signature") for j, k in _signatures(text)]
    spans += [Span(*m.span(m.lastindex), "signature") for m in _FIELD.finditer(text.plain)]
    return outermost(spans)


def outermost(spans: list[Span]) -> list[Span]:
    """Spans that lie in no other, in order: a date is not a long number, too."""
    kept: list[Span] = []
    for span in sorted(dict.fromkeys(spans), key=lambda s: (s.start, -s.end)):
        if not kept or span.end > kept[-1].end:
            kept.append(span)
    return kept


_LOWER = ("dr", "drs")  # titles without a dot and in small letters: dr patel


def is_title(text: Text, i: int) -> bool:
    """Whether a word announces a name: Dr., Frau, Mme."""
    said, word = vocabulary(), text.words[i]
    is_dotted = word.letters in said["dotted"]
    if not (is_dotted or word.letters in said["titles"]) or re.search(r"\d ?$", text.before(i)):
        return False  # 12 Fr, 24 hr
    has_dot = text.plain[word.end : word.end + 1] == "."
    if is_dotted and word.end - word.start == 1:  # M. Dupont, not 10 a.m.
        return has_dot and word.shape != "lower" and not text.before(i).endswith(".")
    if is_dotted:
        return has_dot or word.shape == "title"
    return has_dot or word.shape != "lower" or len(word.letters) > 3 or word.letters in _LOWER


_NO_LOWER = ("sig", "op", "rev", "sr", "st")  # Sig. diverticulosis


def _titled(text: Text) -> Iterator[tuple[int, int, int]]:
    """Word numbers of a title, of the first word of the name that follows, and of its last."""
    said, words, i = vocabulary(), text.words, 0
    while i < len(words):
        if not is_title(text, i):
            i += 1
            continue
        j = i
        while j + 1 < len(words) and re.fullmatch(r"[. -]{0,3}\s?", text.gap(j)):
            j += 1
            if not (is_title(text, j) or words[j].letters in said["after_title"]):
                break
        has_dot = "." in text.plain[words[i].end : words[j].start]
        k = None
        if j > i:
            title, is_one = words[i], words[i].end - words[i].start == 1
            is_plain = title.letters not in _NO_LOWER and not is_one  # M. psoas, MR. enterography
            is_plain = is_plain and not (title.letters in said["dotted"] and title.shape == "upper")
            may_be_lower = (has_dot or title.letters in _LOWER) and is_plain
            k = _name_end(text, j, may_be_lower=may_be_lower, with_comma=title.letters == "drs")
            if is_one and words[j].letters in said["eponyms"]:  # M. Crohn
                k = None
        while (
            k
            and words[i].letters == "drs"
            and k + 2 < len(words)
            and (words[k + 1].letters == "and" and words[k + 2].shape != "lower")
        ):
            k += 2
        if words[i].letters in said["dotted"] and (
            (k == j and words[j].end - words[j].start == 1)
            or (not has_dot and words[j].shape == "upper")
        ):  # M.D., Pan CT
            k = None
        if k is not None:
            yield i, j, k
        i = max(i, j if k is None else k) + (k is not None or j == i)


def _name_end(text: Text, j: int, *, may_be_lower=False, with_comma=False) -> int | None:
    """Number of the last word of a name that begins at a word, or None."""
    said, words, last = vocabulary(), text.words, None
    first, n = j, 0
    while j < len(words) and n < 5:
        word = words[j]
        if j > first:
            is_initial = words[j - 1].end - words[j - 1].start == 1
            gaps = r"[ '-]?|\. ?" if is_initial else r", ?|[ '-]?" if with_comma else "[ '-]?"
            if not re.fullmatch(gaps, text.gap(j - 1)) or (last is not None and is_title(text, j)):
                break
        is_name = word.shape != "lower" and (n == 0 or word.letters not in said["ordinary"])
        if n == 1 and word.shape == words[first].shape and (with_comma or word.shape == "title"):
            is_name = is_name or (len(word.letters) > 2 and word.shape != "lower")  # Will Brown
        if may_be_lower and n == 0 and len(word.letters) > 1:
            is_name = (
                is_name or word.letters not in said["ordinary"] | said["told"] | said["signed"]
            )
        if is_name:
            last, n = j, n + 1
        elif word.letters not in said["particles"]:
            break
        j += 1
    return last


_ORDERS = (
    "performed",
    "requested",
    "ordered",
    "reviewed",
)  # what, and not who, may follow: Chest CT


def _signatures(text: Text) -> Iterator[tuple[int, int]]:
    """First and last word numbers of names that sign, or stand in a field for a person's name."""
    said, words = vocabulary(), text.words
    openers = said["signed"] | said["labels"] | said["told"] | said["fields"]
    for i, word in enumerate(words[:-1]):
        if word.letters not in openers:
            continue
        least, j = _signs_from(text, i, said)
        while j and j < len(words) - 1 and is_title(text, j):
            j += 1
        k = _name_end(text, j, with_comma=True) if j else None
        if k is None or k - j + 1 < least or "\n\n" in text.plain[word.end : words[j].start]:
            continue
        first = words[j]
        is_short = first.shape == "upper" and first.end - first.start < 4 and k == j  # by MRI
        is_pair = k > j and words[k].letters not in said["ordinary"] and word.letters not in _ORDERS
        if (is_pair or first.letters not in said["ordinary"]) and not is_short:
            yield j, k
    words_at = functools.partial(bisect_left, words, key=lambda w: w.start)
    for m in _DEGREE.finditer(text.plain):
        inside = list(range(words_at(m.start(1)), words_at(m.end(1))))
        for n in reversed(inside[:-1]):  # what stands before a sentence's end is no name's part
            if words[n].shape == "lower" or (len(words[n].letters) > 1 and "." in text.gap(n)):
                inside = inside[inside.index(n) + 1 :]
                break
        if inside and all(words[n].shape != "lower" for n in inside):
            yield inside[0], inside[-1]


_CAPITAL = r"[^\W\d_a-z][\w'-]{0,30}"
_FIELD = re.compile(  # of scripts without blanks, and of letters
    r"(?:医師|担当医|主治医|読影医?|技師|患者名|氏名|姓名|名前|医生|医师|판독의|의사|환자명|성명)(?: ?: ?| )"
    rf"([{JOINED}]{{1,4}}(?: [{JOINED}]{{1,4}})?)"
    # Before an honorific; 様 and 氏 alone are words of reports, too.
    r"|([\u3400-\u9fff]{1,4})(?=先生)|患者 ?[:：]? ?([\u3400-\u9fff]{1,5})(?=様|さん|殿|氏)"
    rf"|/(?i:es)/ ?({_CAPITAL}(?:[ ,.]{{1,2}}{_CAPITAL}){{0,3}})"
    rf"|(?<!\d)(?<!\d )\b(?i:cc): ?({_CAPITAL}(?:[ .]{{1,2}}{_CAPITAL}){{1,3}})"
    rf"|\bDear ({_CAPITAL}(?: {_CAPITAL})?)(?=,)|\bI, ({_CAPITAL}(?:[ .]{{1,2}}{_CAPITAL}){{1,3}})(?=,)"
)


def _signs_from(text, i, said):
    """How many words the name after a word like `signed` must have, and which may be the first; 0: none."""
    word, gap = text.words[i].letters, text.gap(i)
    if word in said["labels"]:
        return 1, i + 1 if ":" in gap or word == "gez" else 0
    if word in said["signed"] | said["fields"] and ":" in gap:
        return 2, i + 1
    if word in said["fields"]:
        return 2, 0
    least, by = (1, said["by"]) if word in said["signed"] else (2, said["said_to"])
    for k in range(i + 1, min(i + 6, len(text.words) - 1)):
        if re.search(r"[.!?]\s", text.gap(k - 1)):
            break
        if text.words[k].letters in by:
            return least, k + 1
    return least, 0


_DEGREE = re.compile(
    r"\b((?:[^\W\d_][\w'-]{0,30}\.?,? ){0,3}[^\W\d_][\w'-]{1,30})(?:,? |,)"
    r"(?:M\.?D\.?|D\.?O\.?|Ph\.?D\.?|FRCR|FRANZCR|MBBS|MBChB|R\.?N\.?|PA-C)(?!\w)"
)


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text with what was found replaced, words as a whole and a name's parts as one.

    Parameters
    ----------
    text : str
    spans : iterable of Span
        Places in the text as given.
    """
    merged: list[list[int]] = []
    whole: list[Span] = []
    until = -1  # end of a word in which nothing needs to be drawn to its ends again
    for span in sorted(spans):
        if span.end > until:
            whole.append(_whole_word(text, span))
            is_name = not any(c.isdigit() for c in text[whole[-1].start : whole[-1].end])
            until = whole[-1].end if is_name else -1
    for start, end, _ in sorted(whole):
        last = merged[-1][1] if merged else 0
        parts = _PARTS if text[last - 2 : last - 1].isalnum() else _AFTER_INITIAL
        if merged and (start <= last or parts.fullmatch(text[last:start])):
            merged[-1][1] = max(end, last)
        else:
            merged.append([start, end])
    for start, end in reversed(merged):
        text = text[:start] + DELETED + text[end:]
    return text


_PARTS = re.compile(r"[\s,'’‐-―-]{1,2}(?:[^\W\d_]\.? )?")
_AFTER_INITIAL = re.compile(r"\.?[\s,'’‐-―-]{0,2}(?:[^\W\d_]\.? )?")


def _whole_word(text, span):
    """A span to the ends of its word, with what hyphens and apostrophes tie to it."""
    start, end, kind = span

    def goes_on(at, step):
        sign = text[at : at + 1] if at >= 0 else ""
        if not sign or (re.match(f"[{JOINED}]", sign) and sign not in "\uff9e\uff9f"):
            return False
        if sign.isalnum() or unicodedata.category(sign) in ("Mn", "Mc", "Me", "Cf"):
            return True
        beyond = text[at + step : at + step + 1] if at + step >= 0 else ""
        return (
            sign in _APOSTROPHES + "-‐‑_?\ufffd"
            and beyond.isalpha()
            and not re.match(f"[{JOINED}]", beyond)
        )

    is_name = not any(c.isdigit() for c in text[start:end])
    while (is_name or text[start - 1 : start].isalnum()) and goes_on(start - 1, -1):
        start -= 1
    while (is_name or text[end : end + 1].isalnum()) and goes_on(end, 1):
        end += 1
    return Span(start, end, kind)
