"""One HTML page of what `merlin findings` found, to be opened in a browser; it loads nothing from elsewhere."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from merlin.words import shown

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
  color: #1a1a1a; background: #fff }
img { max-width: 100%; background: #fff }
.warning { border-left: 4px solid #b35900; padding: .5em 1em; background: #fff4e5; color: #1a1a1a }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .15em .6em; border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums }
td.called { font-weight: 600 }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e8e8e8 }
  th, td { border-color: #444 } }
"""


@dataclass(frozen=True)
class Shown:
    """A scan as the page shows it.

    Attributes
    ----------
    name : str
        Of its file or folder.
    body_fraction : float
        Share of the body inside the model's crop, in [0, 1].
    notes : tuple of str
        What was assumed while it was read.
    picture : path or None
        PNG of the three planes as the model saw them.
    scores : DataFrame
        `finding, score, above_zero`.
    """

    name: str
    body_fraction: float
    notes: tuple[str, ...]
    picture: Path | None
    scores: pd.DataFrame


def findings_page(scans: Sequence[Shown], *, warning: str, model: str) -> str:
    """The page: for each scan what the model saw, what was assumed, and findings by falling score.

    Parameters
    ----------
    scans : sequence of Shown
    warning : str
        What stands above everything.
    model : str
        Weights and grid, in words.

    Returns
    -------
    str
        HTML, complete in itself.
    """
    parts = [_scan(number, one) for number, one in enumerate(scans, 1)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Findings</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>Findings of {len(scans)} "
        f'scan{"s" if len(scans) > 1 else ""}</h1>\n<p class="warning">{escape(warning)}</p>\n'
        f"<p>{escape(model)} A score is the similarity of the scan to sentences that state a finding "
        "minus that to sentences that deny it. Above zero is called present; no threshold was fitted to "
        "scans like yours, and scores of different findings cannot be compared in size.</p>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _scan(number: int, one: Shown) -> str:
    inside = f"{one.body_fraction:.0%} of the body lies inside what the model sees"
    if (cut := 1 - one.body_fraction) >= 0.005:
        inside += f"; {cut:.0%} was cut off and cannot have been looked at"
    notes = "".join(f"<li>{escape(shown(note))}</li>" for note in one.notes)
    picture = ""
    if one.picture:
        data = base64.b64encode(one.picture.read_bytes()).decode()
        said = f"Three planes of scan {number} as the model sees them"
        picture = f'<p><img alt="{said}" src="data:image/png;base64,{data}"></p>'
    ordered = one.scores.sort_values("score", ascending=False, kind="stable")
    rows = "".join(
        f"<tr><td{' class=called' if row.above_zero else ''}>{escape(row.finding.replace('_', ' '))}"
        f'</td><td class="number">{row.score:+.3f}</td>'
        f"<td>{'present' if row.above_zero else 'absent'}</td></tr>"
        for row in ordered.itertuples()
    )
    return (
        f"<h2>Scan {number}: {escape(shown(one.name))}</h2>\n{picture}\n<ul><li>{inside}.</li>{notes}"
        "</ul>\n<table><thead><tr><th>Finding</th><th>Score</th><th>Called</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
