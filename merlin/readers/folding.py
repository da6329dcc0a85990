"""Letters as one spelling: no case, accents or width, Latin for Cyrillic and Greek; word lists in that spelling.

The lists are in `names.yaml`.
"""

import functools
import re
import unicodedata
from pathlib import Path

import yaml

# Chinese, kana, Thai, Lao, Burmese, Khmer, Hangul: no blank tells where a name begins or ends.
JOINED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc"
    "\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
APOSTROPHES = "'’‘‛ʼʻˈ`´′＇׳ʹ"
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


def is_joined(text: str) -> bool:
    """Whether a text begins with a sign of a script without blanks."""
    return bool(re.match(f"[{JOINED}]", text))


@functools.cache
def plain_sign(sign: str) -> str:
    """A sign's plain kin, of one sign, or none for what is not seen or rides on another sign."""
    kind = unicodedata.category(sign)
    if kind[0] == "M" or kind == "Cf" or sign in "\uff9e\uff9f":
        return ""
    if sign in APOSTROPHES:
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


@functools.cache
def _lists() -> dict:
    return yaml.safe_load(Path(__file__).with_name("names.yaml").read_text(encoding="utf-8"))


@functools.cache
def vocabulary() -> dict[str, frozenset[str]]:
    """Lists of `names.yaml` as sets of folded words; those of `met …` went through `meet`, too."""
    lists = {k: v.split() for k, v in _lists().items() if isinstance(v, str)}
    folded = {k: frozenset(map(fold, words)) for k, words in lists.items()}
    return folded | {
        f"met {k}": frozenset(map(meet, folded[k])) for k in ("ordinary", "eponyms", "endings")
    }


@functools.cache
def months() -> dict[str, int]:
    """Folded words for months, and which month of the year each is."""
    return {fold(w): n for n, line in enumerate(_lists()["months"], 1) for w in line.split()}
