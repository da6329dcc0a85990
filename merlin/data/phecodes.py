"""ICD → phecode → labels of studies, with no code lost in silence.

Phecodes follow the PheWAS map 1.2 (paper_facts §2.6). A positive child makes its parents positive:
all of them by the paper's rule; by the map's own, not where it says that a phecode does not roll up. A
parent that the list of phenotypes lacks is skipped. Codes that the map does not know are counted and
named, and a study of which no code was found is unknown, which is not the same as healthy.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data.cells import TableError, some_rows, why_apart
from merlin.data.codes import coded, doubtful_icd9, plain_icd, vocabulary
from merlin.data.tables import read_table
from merlin.words import shown

TABLES = Path(__file__).parent / "tables"
LEAST_MAPPED = 0.5  # of the codes; with fewer, map and codes do not belong together
ROLLUPS = ("map", "paper")


def normalise_phecode(text: object) -> str:
    """One spelling for a phecode: `008.50`, `8.5` and `8.50` all become `8.5`.

    Raises
    ------
    ValueError
        If the text is not digits with at most two decimals.
    """
    text = str(text).strip()
    match = re.fullmatch(r"0*(\d{1,4})(?:\.(\d{1,2}))?", text)
    if not match:
        raise ValueError(
            f"{text!r} is not a phecode. Expected digits with at most two decimals, as 250.2"
        )
    whole, decimals = match.group(1), (match.group(2) or "").rstrip("0")
    return f"{whole}.{decimals}" if decimals else whole


def parents(phecode: str, rollup: str = "paper") -> tuple[str, ...]:
    """`250.22` → (`250.2`, `250`).

    Parameters
    ----------
    phecode : str
        Normalised.
    rollup : {"paper", "map"}
        By the paper's rule a positive child sets all its parents; the map 1.2 names 119 phecodes that
        do not roll up, as 573.3 (hepatomegaly) to 573 (other disorders of liver).
    """
    if rollup not in ROLLUPS:
        raise ValueError(f"rollup {rollup!r}. Expected {' or '.join(ROLLUPS)}.")
    stops = _stops() if rollup == "map" else frozenset()
    found = []
    while "." in phecode and phecode not in stops:
        phecode = phecode[:-1].rstrip(".")
        found.append(phecode)
    return tuple(found)


@cache
def _stops() -> frozenset[str]:
    return frozenset(pd.read_csv(TABLES / "phecodes_without_rollup.csv", dtype=str)["phecode"])


def read_code_map(path: str | Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Read an ICD → phecode map.

    Parameters
    ----------
    path : path
        A table, also gzipped: `vocabulary, code, phecode`, or as published: the R package's
        (`vocabulary_id, code, phecode`), phewascatalog.org's (`ICD9` or `ICD10`, `PheCode`), PheTK's
        (`ICD, flag, phecode`). Rows without a phecode are dropped.

    Returns
    -------
    dict
        (vocabulary, ICD code without dot) → tuple of phecodes. Codes that differ in case alone stay
        apart: they are different codes in the published map.

    Raises
    ------
    TableError
        Of missing columns, rows that are no phecodes, and ICD-9 codes without their zeros.
    """
    path = Path(path)
    table = coded(read_table(path), path.name)
    missing = {"vocabulary", "code", "phecode"} - set(table.columns)
    if missing:
        raise TableError(
            f"{path.name}: no column {', '.join(sorted(missing))}; found {', '.join(table.columns)}. "
            "Rename the columns of your map to vocabulary, code and phecode."
        )
    table = table[(table["code"].str.strip() != "") & (table["phecode"].str.strip() != "")]
    names = {v: vocabulary(v) for v in table["vocabulary"].unique()}
    table = table.assign(vocabulary=table["vocabulary"].map(names)).dropna(subset=["vocabulary"])
    if table.empty:
        raise TableError(
            f"{path.name}: no code of ICD9CM, ICD10CM or ICD10; found {', '.join(names) or 'no rows'}."
        )
    old = table["code"][table["vocabulary"] == "ICD9CM"]
    # What is left of two signs is no other code.
    if (bad := (doubtful_icd9(old) != "") & (old.map(plain_icd).str.len() > 2)).any():
        raise TableError(
            f"{path.name}: {some_rows(old.index[bad])}, column code: {', '.join(old[bad].unique()[:5])}: "
            "a spreadsheet took the zeros of ICD-9 codes. Use the map as it was published."
        )
    phecode, odd = {}, []
    for text in table["phecode"].unique():
        try:
            phecode[text] = normalise_phecode(text)
        except ValueError:
            odd.append(text)
    if odd:
        raise TableError(
            f"{path.name}: {some_rows(table.index[table['phecode'].isin(odd)])}, column phecode: "
            f"{', '.join(odd[:5])}. Expected phecodes of the map 1.2, as 250.2 (PhecodeX has others)."
        )
    mapping: dict[tuple[str, str], dict[str, None]] = {}
    rows = zip(table["vocabulary"], table["code"], table["phecode"], strict=True)
    for kind, code, text in rows:
        mapping.setdefault((kind, plain_icd(code)), {})[phecode[text]] = None
    return {key: tuple(value) for key, value in mapping.items()}


def read_phenotypes(path: str | Path = TABLES / "phantom_phecodes.csv") -> pd.DataFrame:
    """Phecodes in the order of the model's outputs, with their names.

    Returns
    -------
    pandas.DataFrame
        `phecode` (text, normalised) and `phenotype`.
    """
    table = read_table(path)
    if table.shape[1] < 2:
        raise TableError(
            f"{Path(path).name}: found {', '.join(table)}. Expected two columns: phecode, name."
        )
    table = table.iloc[:, :2].set_axis(["phecode", "phenotype"], axis=1).astype("str")
    table = table.reset_index(drop=True)
    table["phecode"] = table["phecode"].map(normalise_phecode)
    return table


def unnamed_phenotypes(n: int = 1692) -> pd.DataFrame:
    """Outputs of a phecode head that no code trains, by number; as many as the paper's by default.

    So a model that learnt from reports alone has the released one's shape, and the authors' code loads it.
    """
    return pd.DataFrame({"phecode": [f"output {i}" for i in range(n)], "phenotype": ""})


@dataclass(frozen=True)
class Mapped:
    """Phecode labels of studies, and what became of their codes.

    Attributes
    ----------
    labels : (n_studies, n_phecodes) uint8
        1 where a code or one of its children was recorded.
    is_found : (n_studies,) bool
        At least one of the study's codes is in the map.
    n_codes : int
        Rows of these studies.
    unmapped : DataFrame
        `vocabulary, code, n` of the codes that the map does not know, the most frequent first.
    n_by_other : int
        Rows of ICD10 that the map knows as ICD10CM, or the reverse.
    n_lost_studies : int
        Studies with codes, of which none is in the map.
    """

    labels: np.ndarray
    is_found: np.ndarray
    n_codes: int
    unmapped: pd.DataFrame
    n_by_other: int
    n_lost_studies: int

    @property
    def n_unmapped(self) -> int:
        """Rows that the map does not know."""
        return int(self.unmapped["n"].sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for whoever reads the labels; none where every code was found as it stands."""
        said = []
        if len(self.unmapped):
            names = [
                f"{shown(r.code[:20])} ({r.vocabulary}, {r.n:,})"
                for r in self.unmapped.head(5).itertuples()
            ]
            said.append(
                f"{self.n_unmapped:,} of {self.n_codes:,} codes have no phecode in the map: "
                f"{', '.join(names)}{' …' if len(self.unmapped) > 5 else ''}."
            )
        if self.n_by_other:
            said.append(
                f"{self.n_by_other:,} codes were found under the other ICD-10 (ICD10 as ICD10CM, or the "
                "reverse)."
            )
        if self.n_lost_studies:
            said.append(
                f"{self.n_lost_studies:,} studies have codes of which none was found: unknown, not healthy."
            )
        return tuple(said)


def map_codes(
    codes: pd.DataFrame, study_ids, code_map: dict, phecodes, *, rollup: str = "map"
) -> Mapped:
    """Phecode labels of studies from the codes of their encounters.

    Parameters
    ----------
    codes : DataFrame
        `study_id, vocabulary, code`.
    study_ids : sequence of str
    code_map : dict
        From `read_code_map`.
    phecodes : sequence of str
        Columns of the result, normalised.
    rollup : {"map", "paper"}
        As in `parents`.

    Returns
    -------
    Mapped
    """
    row = {s: i for i, s in enumerate(study_ids)}
    column = {p: j for j, p in enumerate(phecodes)}
    labels, is_found = np.zeros((len(row), len(column)), np.uint8), np.zeros(len(row), bool)
    codes = codes[["study_id", "vocabulary", "code"]].fillna("").astype(str)
    kinds = {v: vocabulary(v) for v in codes["vocabulary"].unique()}
    old = codes["code"][codes["vocabulary"].map(kinds) == "ICD9CM"]
    doubtful = set(old[doubtful_icd9(old) != ""])
    codes = codes[codes["study_id"].isin(row)].reset_index(drop=True)
    studies = codes["study_id"].map(row).to_numpy(int)
    alike, unmapped, n_by_other = _by_capitals(code_map), [], 0
    pairs = codes.groupby(["vocabulary", "code"], sort=False).indices if len(codes) else {}
    for (name, code), rows in pairs.items():
        found, kind = (), kinds[name]
        kind_found = kind
        if not (kind == "ICD9CM" and code in doubtful):
            found, kind_found = _look_up(kind, plain_icd(code), code_map, alike)
        if not found:
            unmapped.append((name, code, len(rows)))
            continue
        n_by_other += len(rows) * (kind_found != kind)
        is_found[studies[rows]] = True
        every = {q for p in found for q in (p, *parents(p, rollup))}
        labels[np.ix_(studies[rows], [column[p] for p in every if p in column])] = 1
    table = pd.DataFrame(unmapped, columns=["vocabulary", "code", "n"])
    table = table.sort_values("n", ascending=False, kind="stable", ignore_index=True)
    n_lost = len(set(studies)) - int(is_found.sum())
    return Mapped(labels, is_found, len(codes), table, n_by_other, n_lost)


def phecode_matrix(
    codes: pd.DataFrame, study_ids, code_map: dict, phecodes, *, rollup: str = "map"
) -> tuple[np.ndarray, int]:
    """`labels` and `n_unmapped` of `map_codes`."""
    mapped = map_codes(codes, study_ids, code_map, phecodes, rollup=rollup)
    return mapped.labels, mapped.n_unmapped


def _by_capitals(code_map: dict) -> dict:
    """(vocabulary, code in capitals) → phecodes; none where codes that differ in case disagree."""
    found: dict[tuple[str, str], set[frozenset]] = {}
    for (kind, code), phecodes in code_map.items():
        found.setdefault((kind, code.upper()), set()).add(frozenset(phecodes))
    return {key: tuple(sorted(*one)) if len(one) == 1 else () for key, one in found.items()}


def _look_up(kind: str | None, code: str, code_map: dict, alike: dict) -> tuple[tuple, str | None]:
    """Phecodes of a code, and the vocabulary that has it: as written, else in any case."""
    other = {"ICD10": "ICD10CM", "ICD10CM": "ICD10"}.get(kind or "")
    for place in (kind, other):
        found = code_map.get((place, code)) or alike.get((place, code.upper()))
        if found:
            return found, place
    return (), kind


def phecode_labels(
    codes: pd.DataFrame,
    study_ids,
    code_map: dict,
    phecodes,
    *,
    uncoded: str = "absent",
    rollup: str = "map",
    least_mapped: float = LEAST_MAPPED,
) -> np.ndarray:
    """Labels of `map_codes` with NaN where nothing is known.

    Parameters
    ----------
    uncoded : {"absent", "unknown"}
        What a study without any code has: no disease (phantoms, whose coders see every study), or
        nothing known. Phecodes that the map never gives are unknown then, too. A study with codes of
        which none is in the map is unknown in either case.
    rollup : {"map", "paper"}
        As in `parents`.
    least_mapped : float
        Share of the table's codes that the map has to know.

    Returns
    -------
    (n_studies, n_phecodes) float32
        1, 0 or NaN; all NaN where there are no codes at all, which is not the same as no disease.

    Raises
    ------
    ValueError
        If fewer codes are mapped, naming the most frequent others; or if the ids of codes and studies
        differ by zeros, capitals or signs alone.
    """
    labels = np.full((len(study_ids), len(phecodes)), np.nan, np.float32)
    if not len(codes):
        return labels
    owners = codes["study_id"].dropna()
    mapped = map_codes(codes, study_ids, code_map, phecodes, rollup=rollup)
    if not mapped.n_codes and (why := why_apart(owners.astype(str), map(str, study_ids))):
        raise ValueError(f"codes: no study_id is one of the manifest's: {why}.")
    kinds = {v: vocabulary(v) for v in codes["vocabulary"].unique()}
    icd = codes[codes["vocabulary"].map(kinds).notna()]
    table = map_codes(icd, owners.unique(), code_map, [])  # the same for any part of the studies
    if table.n_codes - table.n_unmapped < least_mapped * table.n_codes:
        raise ValueError(
            f"codes and code map do not belong together: fewer than {least_mapped:.0%} of the codes are "
            f"in the map. {' '.join(table.notes)} The map has "
            f"{', '.join(sorted({kind for kind, _ in code_map}))}."
        )
    has_codes = pd.Index(study_ids).isin(owners)  # np.isin takes minutes for 20,000 texts
    is_known = np.repeat((mapped.is_found | ~has_codes)[:, None], len(phecodes), axis=1)
    if uncoded == "unknown":
        direct = {p for group in code_map.values() for p in group}
        given = direct | {q for p in direct for q in parents(p, rollup)}
        is_known &= has_codes[:, None] & pd.Index(phecodes).isin(given)
    labels[is_known] = mapped.labels[is_known]
    return labels
