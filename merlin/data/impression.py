"""Where a report's findings end and its impression begins, however that is headed.

An impression that stays in the findings gives the answer away to whoever retrieves or writes them.
"""

import re

_IMPRESSION = re.compile(
    r"(?<![^\W_])(impres{2,3}i?ons?|conclusions?|opinion|beurteilung|befundbeurteilung|impresi[oó]n|"
    r"conclusi[oó]n(?:es)?|conclusie|conclusion[ei]|impress[aã]o|conclus[aã]o|summary|zusammenfassung|fazit|"
    r"konklus(?:j|i)on|vurdering|bedömning|johtopäätös|wnios(?:ki|ek)|sonu[çc]|z[áa]v[ěe]r|заключение|"
    r"συμπέρασμα|vélemény|összefoglalás|诊断意见|诊断印象|診斷意見|印象|結論|结论|(?:판독 )?결론|ｉｍｐｒｅｓｓｉｏｎ|"
    r"i m p r e s s i o n)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
# Where none of these stands: what heads an impression only with its colon (or comma), after longer findings.
_WEAK = re.compile(
    r"(?:^|(?<=[.\n;!?)]))[^\S\n]*((?:final |radiolog\w+ |imaging |ct )?(?:imp|interpretations?|diagnos[ie]s|"
    r"diagnose|assessment|synopsis|bottom line|wet read|au total|yorum|診断)"
    r"(?: (?:and|&) \w+| \(and plan\)|/\w+)? ?[:：]|"
    r"(?:in (?:conclusion|summary)|to summari[sz]e) ?[,:：])",
    re.IGNORECASE,
)
# Tags, rules and bullets around a heading, and Excel's line breaks.
_DECOR = r"(?:</?\w[^<>\n]{0,30}>|_x000D_|[*#_=\[\]>~•])"
_BEFORE = re.compile(rf"(?:{_DECOR}|[-–—\s])+$", re.IGNORECASE)
_AFTER = re.compile(rf"^(?:{_DECOR}|[^\S\n])*", re.IGNORECASE)
_JOINED = re.compile(
    r"(?:diagn\w+\s*|(?:and|&|/|,)\s*\w+\s*|\([^)\n]{1,40}\)\s*)?[:：]", re.IGNORECASE
)
_LEAD = re.compile(rf"^(?:{_DECOR}|[-–—.;:\s])+", re.IGNORECASE)
# What is said before a word that heads something else, or behind one that heads nothing.
_NO_HEAD = re.compile(
    r"(?:[&/]|\b(?:and|or|no|an?|the|mass|extrinsic|clinical|initial|prior|previous|referring|see|per|under|in|"
    r"as|to|of|for|with|gastric|basilar|cardiac|renal|"
    r"colon|splenic|caudal|hepatic|cerebellar|convolutional|digital|vascular|aortic|duodenal))$|"
    r"(?:^|\n)\s*findings$",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"(?:on|of|upon|from|by|is|was|are|were|along|at|in|into|to|for|that|which|and|or|with|over|due)\b",
    re.IGNORECASE,
)
_FINDINGS_HEAD = re.compile(r"(?:^|(?<=[.\n]))[^\S\n]*findings\s*:", re.IGNORECASE)


def split_impression(text: str) -> tuple[str, str]:
    """(findings, impression) of a report; the impression is empty where there is none.

    Its heading may lack the colon, stand in capitals, in tags, alone on its line, or be called a
    conclusion; prose about an impression (`mass impression on the bladder`) is none. Findings that stand
    below the impression are findings.
    """
    if "\n" not in text and "\\n" in text:  # escapes of a text that went through JSON or CSV
        text = text.replace("\\r", "").replace("\\n", "\n")
    findings, impressions, said, rest = [], [], "", text
    while rest:
        before, said, rest = _split_once(rest)
        findings.append(before)
        impressions.append("" if rest and before.endswith("(") else said)  # of a former report
    return "\n".join(f for f in findings if f), "\n".join(i for i in impressions if i) or said


def _split_once(text: str) -> tuple[str, str, str]:
    """(findings, impression, findings below that): the last is empty where none stand there."""
    for mark in _IMPRESSION.finditer(text):
        if not _is_heading(text, mark):
            continue
        rest = _AFTER.sub("", text[mark.end() :], count=1)
        if joined := _JOINED.match(rest):
            rest = rest[joined.end() :]
        findings, said = _findings_before(text, mark.start()), _LEAD.sub("", rest)
        below = _FINDINGS_HEAD.search(said)
        is_longer = below and len(said) - below.end() > len(findings)
        if below and is_longer and not _FINDINGS_HEAD.search(findings):
            return findings, said[: below.start()].strip(), said[below.end() :].strip()
        return findings, said.strip(), ""
    for mark in _WEAK.finditer(text):
        findings, said = _findings_before(text, mark.start(1)), _LEAD.sub("", text[mark.end() :])
        if len(said) < len(findings):
            return findings, said.strip(), ""
    return text.strip(), "", ""


def _findings_before(text: str, start: int) -> str:
    near = max(0, start - 300)
    return (text[:near] + _BEFORE.sub("", text[near:start])).strip()


def _is_heading(text: str, mark: re.Match[str]) -> bool:
    """Whether a word for *impression* heads what follows."""
    near = text[max(0, mark.start() - 300) : mark.start()]
    word, before, line = mark[1], _BEFORE.sub("", near), near.rpartition("\n")[2]
    after = _AFTER.sub("", text[mark.end() : mark.end() + 300], count=1)
    begins_line = not _BEFORE.sub("", line).strip()
    begins = not before or before[-1] in ".:;!?)"
    if _NO_HEAD.search(before) and not (begins_line and word[0].isupper() and line != near):
        return False
    is_capital, is_impression = word[0].isupper(), word.lower().startswith("impres")
    if _JOINED.match(after):
        return begins or begins_line or (is_impression and after[0] == ":")
    if not after or after[0] == "\n":  # alone on its line, or at the line's end
        return begins or (begins_line and is_capital)
    if not is_impression and re.match(r"[A-Z]{3,}\s*:", after):  # OPINION SOUGHT: yes
        return False
    if re.match(r"[-–—.;](?:\s|$)", after) or re.match(r"\d{1,2}\s?[.)]", after):
        return begins or (begins_line and is_capital)
    if _PROSE.match(after) or not (is_impression or word.isupper()):
        return False
    if re.match(r"[A-Z\d(]", after) and is_capital and (begins or begins_line):
        return True
    return is_impression and word.isupper() and re.search(r"[a-z]{3}", text) is not None
