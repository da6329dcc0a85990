"""The names that everything here agrees on: findings, sections, diseases, structures, splits.

They stand in `vocabulary.yaml`; what is drawn, dictated, mined or judged under a name stands elsewhere, so
that a change there reruns nothing that reads names alone. Imports nothing of this package.
"""

from pathlib import Path

import numpy as np
import yaml

_SAID = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

NAMES: tuple[str, ...] = tuple(_SAID["findings"])  # the 30 findings, in the data release's order
ONLY_SEX: dict[str, str] = {n: f.get("only_sex", "") for n, f in _SAID["findings"].items()}
SECTIONS: tuple[str, ...] = tuple(_SAID["sections"])  # of a report
FINDINGS_OF: dict[str, tuple[str, ...]] = {
    s: tuple(n for n in NAMES if _SAID["findings"][n]["section"] == s) for s in SECTIONS
}
HEADINGS: dict[str, tuple[str, ...]] = {
    s: tuple(v["headings"]) for s, v in _SAID["sections"].items()
}
TERSE_HEADINGS: dict[str, str] = {s: v["terse"] for s, v in _SAID["sections"].items()}
DISEASES: dict[str, str] = _SAID["diseases"]  # the data release's column → condition
STRUCTURES: tuple[str, ...] = tuple(_SAID["structures"])
LABEL: dict[str, int] = {
    name: i + 1 for i, name in enumerate(STRUCTURES)
}  # in label maps; 0 is the rest
SPLITS: tuple[str, ...] = tuple(_SAID["splits"])
SPLIT_NAMES: dict[str, str] = {
    other: s for s, others in _SAID["splits"].items() for other in others
}


def plain_splits(splits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Splits as we call them (`Test` is test, `validation` is val), and a note that lists what was read so."""
    plain = np.char.lower(np.char.strip(np.asarray(splits, str)))
    plain = np.array([SPLIT_NAMES.get(s, s) for s in plain.tolist()], str)
    plain = np.where(np.isin(plain, SPLITS), plain, splits)
    changed = sorted(set(zip(np.asarray(splits, str), plain, strict=True)))
    said = ", ".join(f"{a} as {b}" for a, b in changed if a != b)
    return plain, [f"split: {said}"] if said else []
