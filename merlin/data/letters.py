"""Which Windows code page a text without a mark is written in, by the letters of its languages.

The wrong page gives other letters and no error: `Wałęsa` of 1250 is `Wa³êsa` in 1252. Each reading is
held against alphabets; signs within words, capitals after small letters and two scripts in a word
speak against it.
"""

import re
from collections import Counter
from itertools import islice

ALPHABETS = {
    "cp1252": "äöüß äöåé åæøé éèêëàâçîïôûùœæ áéíóúñü¿¡ ãõáéíóúâêôçàü àèéìòùóî ëïéèöüó çàèéíïòóúü "
    "áéíóúýþæöð àâãäåæçèéêëìíîïñòóôõöøùúûüßœ",
    "cp1254": "çğıöşüâîûİ",
    "cp1250": "ąćęłńóśźż áčďéěíňóřšťúůýž áäčďéíľňóôšťúýž áéíóöőúüű ăâîşţ čćđšž",
    "cp1251": "абвгдежзийклмнопрстуфхцчшщъыьэюяё абвгдежзийклмнопрстуфхцчшщьюяґєії "
    "абвгдежзиклмнопрстуфхцчшђјљњћџ",
}
MOST_HITS = 200_000  # letters that are looked at
_ANYWHERE = "’‘–—·…\xad\xa0"
_VOWELS = "аеиоуыэюяёіїє"
_HIT = re.compile(r"(?s)(?<=(.))([^\x00-\x7f])(?=(.?))")


def _oddness(hit: tuple[str, str, str], alphabet: str) -> int:
    """How much a sign outside ASCII speaks against a reading: 0, 1, or 3 of letters that can't be."""
    before, sign, after = hit
    if sign in _ANYWHERE:
        return 0
    if sign in alphabet or sign.lower() in alphabet:
        if sign in "łі" and (before == "m" or before.isdigit()) and not after.isalpha():
            return 1  # ³ of a volume
        if before.islower() and sign.isupper():
            return 3
        return 3 * (sign >= "\u0400" and any(c.isascii() and c.isalpha() for c in before + after))
    if sign in "¹²³ªº":
        return (before.isalpha() and before != "m") or after.isalpha()
    if (sign == "§" and before.isalpha()) or (sign in "£¥¯¿" and after.isalpha()):
        return 1
    return (sign.isalpha() and sign != "µ") or (before.isalpha() and after.isalpha())


def _cost(hits: Counter, page: str, alphabet: str) -> float:
    cost = sum(n * _oddness(hit, alphabet) for hit, n in hits.items()) / hits.total()
    if page == "cp1251":  # Hebrew and Greek stand at the same bytes, but not their vowels
        n_letters = sum(n for hit, n in hits.items() if hit[1].isalpha())
        cost += sum(n for hit, n in hits.items() if hit[1].lower() in _VOWELS) < 0.25 * n_letters
    # Names of many languages fit no one's; Icelandic, whose þ ð ý are Turkish ş ğ ı, is rare.
    return cost + 0.08 * (page == "cp1252" and len(alphabet) > 25) + 0.03 * ("þ" in alphabet)


def code_pages(raw: bytes) -> list[str]:
    """Code pages whose readings of bytes are likeliest, equal readings once.

    Returns
    -------
    list of str
        One: it is certain. None: no reading is text. More: they differ and nothing tells.
    """
    best = {}
    for page, alphabets in ALPHABETS.items():
        try:
            text = raw.decode(page)
        except UnicodeDecodeError:
            continue
        hits = Counter(m.groups() for m in islice(_HIT.finditer(" " + text), MOST_HITS))
        best[page] = min(_cost(hits, page, a) for a in alphabets.split()), text
    least = min((cost for cost, _ in best.values()), default=1)
    if least > 0.1:
        return []
    near = {text: page for page, (cost, text) in reversed(best.items()) if cost < least + 0.02}
    return sorted(near.values())
