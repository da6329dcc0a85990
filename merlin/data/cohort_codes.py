"""The diagnosis codes of a cohort's folder, and the rules by which they become phecodes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from merlin.data.codes import read_codes
from merlin.data.phecodes import TABLES, map_codes, read_code_map


@dataclass(frozen=True)
class Coding:
    """Codes and how they are read.

    Attributes
    ----------
    codes : DataFrame
        `study_id, vocabulary, code`.
    code_map : dict
        From `read_code_map`.
    rules : dict
        `uncoded` and `rollup` of `phecode_labels`.
    """

    codes: pd.DataFrame
    code_map: dict
    rules: dict[str, str]

    def without_codes(self) -> "Coding":
        """The same with an empty table, where nothing learns from codes."""
        return replace(self, codes=self.codes.iloc[:0])

    def notes(self, study_ids: Sequence[str]) -> tuple[str, ...]:
        """Remarks on codes without a phecode, if there are any."""
        return map_codes(self.codes, study_ids, self.code_map, []).notes


def read_coding(folder: Path, *, tier: str, code_map: str, rollup: str) -> Coding:
    """Read the codes of a cohort.

    Parameters
    ----------
    folder : path
        Holds `codes.csv`.
    tier : str
        Phantoms' codes are complete: what is not coded is absent. Elsewhere it is unknown.
    code_map : path
        From codes to phecodes; empty: the phantom's.
    rollup : str
        As in `phecode_labels`.
    """
    rules = {"uncoded": "absent" if tier == "phantom" else "unknown", "rollup": rollup}
    known = read_code_map(code_map or TABLES / "phantom_icd.csv")
    return Coding(read_codes(folder / "codes.csv"), known, rules)
