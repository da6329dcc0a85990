"""No result and no verdict is typed as a sentence: tables change with a run, prose would not."""

import ast
import json
import re

import pytest

from merlin import run
from merlin.evaluation import claims

# What looks like a result (0.867, −.05, 4.6 %), outside code and links. One decimal alone is a threshold or a guess.
RESULT = re.compile(r"(?<![\w.])[+−-]?\d*\.\d\d+\b(?!\.)|\b\d+\.\d+ ?%|\b\d+ ?%")
# What says that one thing did better than another, or what came out of a claim.
VERDICT = re.compile(
    r"\b(?:holds|contradicted|not decided|not askable) here\b|\b(?:do|does|did|fare[sd]?) (?:\w+ )?(?:better|worse)\b"
    r"|\b(?:clearly|far|much|significantly) (?:better|worse)\b|\boutperform|\bbeats?\b|\bno gain\b"
    r"|\btwo thirds\b|\ba fifth of\b|\bfails? nearly\b|\bfar from done\b",
    re.IGNORECASE,
)
# Reviewed: (where, what) → why it may stand.
ALLOWED = {
    ("01_cohort", "100 %"): "an example of what a reader may see",
    ("08_five_year", "30 %"): "an example that defines reliability",
    ("08_five_year", "3 %"): "a share that the reader is invited to set",
    ("13_scaling_laws", "0.001"): "Huber's δ of Hoffmann et al.",
    ("13_scaling_laws", "0.05"): "the level at which a law is chosen",
    ("14_intervals", "95 %"): "the nominal level",
    ("14_intervals", "97 %"): "the end of the band that is drawn",
    ("17_ideas", "95 %"): "the nominal level",
    (
        "07_external",
        "two thirds",
    ): "arithmetic: F1 of calling all positive at a base rate of a half",
    ("12_ablations", "holds here"): "defines the word",
    ("12_ablations", "contradicted here"): "defines the word",
    ("12_ablations", "not decided here"): "defines the word",
    ("12_ablations", "not askable here"): "defines the word",
    ("16_claims", "holds here"): "defines the word",
    ("16_claims", "contradicted here"): "defines the word",
    ("16_claims", "not decided here"): "defines the word",
    ("16_claims", "beats"): "the form of a claim",
    ("16_claims", "beat"): "what the rule asks of a reference",
}
OURS = re.compile(
    r"\b(?:two thirds|a fifth|far from done|easier rival|fair comparison)\b| here\b.*\bhas fewer"
)
DOCS = ("docs/review.md", "docs/limits.md")


def passages():
    """(where, text): sentences of the documents and of markdown cells."""
    for name in DOCS:
        yield from ((name, line) for line in (run.ROOT / name).read_text().splitlines())
    for path in sorted(run.NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                yield path.stem, "".join(cell["source"])


def found(text):
    """What looks like a result or a verdict; questions, forecasts and what a reader is told to do are none."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|https?://\S+|arXiv[ :]\S+", " ", text)
    yield from (m[0] for m in RESULT.finditer(text))
    for sentence in re.split(r"(?<=[.?!:;])\s", text):
        is_said = not sentence.rstrip().endswith("?") and not re.match(
            r"\W*(Expect|Does)", sentence
        )
        yield from (
            m[0].lower() for m in VERDICT.finditer(sentence) if is_said and "should" not in sentence
        )


def test_prose_holds_no_typed_result_and_no_verdict():
    seen = [(where, odd) for where, text in passages() for odd in found(text)]
    assert not sorted({pair for pair in seen if pair not in ALLOWED})


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("mean Dice 0.15, liver 0.84", ["0.15", "0.84"]),
        ("A tenth of the data does clearly worse.", ["does clearly worse", "clearly worse"]),
        ("Written reports beat the nearest report", ["beat"]),
        ("splitting holds here", ["holds here"]),
        ("it moved by 4.6 %", ["4.6 %"]),
        ("Does A beat B here?", []),
        ("Expect zero-shot to do worse.", []),
        ("0.5 is guessing; see [x](../figures/a_0.867.csv), `n = 0.867` and arXiv 2406.06512", []),
    ],
)
def test_what_a_reader_would_take_for_a_result_is_seen(text, odd):
    seen = list(found(text))
    assert [o for o in odd if not any(o in s or s in o for s in seen)] == []
    assert bool(seen) == bool(odd)


def test_notes_of_claims_hold_no_verdict_of_ours():
    """They may say what the paper claims (kernel 3 beats larger ones), never how ours came out."""
    notes = {e["id"]: e["note"] or "" for e in claims.read_claims()}
    assert not {i: n for i, n in notes.items() if OURS.search(n)}


def test_code_repeats_no_published_value():
    """A number of the paper stands in claims.yaml, with its source, and nowhere else."""
    known = {
        e[k] for e in claims.read_claims() for k in ("value", "low", "high") if e[k] is not None
    }
    known = {
        v for v in known if isinstance(v, float) and len(re.sub(r"\D", "", str(v)).lstrip("0")) > 2
    }
    seen = {}
    for room in ("statistics", "evaluation"):
        for path in (run.ROOT / "merlin" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Constant)
                    and type(node.value) is float
                    and node.value in known
                ):
                    seen[f"{path.name}:{node.lineno}"] = node.value
    assert not seen
