"""Studies that several files have in common, and files that cannot be put beside the first.

Any encoder enters as an embeddings file, any classifier as a table of scores; what they are judged on
must be the same studies of the same patients, whoever spelt their ids.
"""

import numpy as np

from merlin.data.cells import why_apart


def common_rows(
    files: dict, *, site: str | None = None, split: str | None = None
) -> dict[str, np.ndarray]:
    """Positions, in each file, of the studies that all have, in the first file's order.

    Parameters
    ----------
    files : dict of str to Embeddings or ScoreTable
    site, split : str, optional
        By the first file.

    Returns
    -------
    dict of str to (n,) int array

    Raises
    ------
    ValueError
        If no study is of that site and split (what there is is listed), or the files have none in
        common, or they disagree on whose a study is. Unknown patients disagree with nobody.
    """
    first = next(iter(files.values()))
    keep = _asked(first, site=site, split=split)
    wanted, known = set(first.study_id[keep]), set(first.study_id)
    shared = wanted.intersection(*(e.study_id for e in files.values()))
    ids = [i for i in first.study_id if i in shared]
    met = {name: len(wanted & set(e.study_id)) for name, e in files.items()}
    if not ids:
        apart = [why_apart(first.study_id, e.study_id) for e in files.values()]
        why = next((f": {why}" for why in apart if why), "")
        asked = f" of site {site or 'any'}, split {split or 'any'}"
        have = ", ".join(f"{name} {n}" for name, n in met.items())
        raise ValueError(
            f"the files have no study{asked} in common; study_id must agree (of the first file's "
            f"{keep.sum()} studies, {have}){why}"
        )
    for name, e in files.items():
        theirs = set(e.study_id)
        if why := why_apart(wanted - theirs, theirs - known):
            raise ValueError(
                f"study_id: {met[name]} of the first file's {keep.sum()} studies are in "
                f"{name}: {why}. Spell them alike."
            )
    rows = {name: positions(e, ids) for name, e in files.items()}
    owner = owners(files, rows)
    wrong = {}
    for name, e in files.items():
        theirs = e.patient_id[rows[name]]
        wrong[name] = int(((theirs != owner) & _is_known(e, rows[name])).sum())
    if any(wrong.values()):
        said = "; ".join(f"{name}: {n} studies" for name, n in wrong.items() if n)
        raise ValueError(f"patient_id differs from the first file's for {said}")
    return rows


def _asked(e, **wanted):
    """Mask of a file's studies of a site and split."""
    keep = np.ones(len(e.study_id), bool)
    for what, value in wanted.items():
        if value is None:
            continue
        keep &= getattr(e, what) == value
        if not keep.any():
            found = tally(getattr(e, what))
            raise ValueError(
                f"no study of {what} {value}; found {found}. Name one with --{what}"
                + (", or --split all." if what == "split" else ".")
            )
    return keep


def positions(e, ids: np.ndarray | list[str]) -> np.ndarray:
    """(n,) int: rows of a file's studies, which must be in it."""
    position = {i: n for n, i in enumerate(e.study_id)}
    return np.array([position[i] for i in ids], int)


def owners(files: dict, rows: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) str: the patient of each common study, by the first file that knows it."""
    found = [
        (e.patient_id[rows[n]].astype(object), _is_known(e, rows[n])) for n, e in files.items()
    ]
    out, is_known = found[0]
    for theirs, known in found[1:]:
        out, is_known = np.where(is_known, out, theirs), is_known | known
    return out.astype(str)


def _is_known(e, rows):
    """Whether a study's patient is more than the study itself: unknown ones are called so."""
    pairs = zip(e.patient_id[rows], e.study_id[rows], strict=True)
    return np.array([patient not in (study, f"{study} (unknown)") for patient, study in pairs])


def tally(values: np.ndarray) -> str:
    """Each value and how often it stands there."""
    found = zip(*np.unique(values, return_counts=True), strict=True)
    return ", ".join(f"{v or '(empty)'} {n}" for v, n in found)


def that_meet(files: dict, **asked: str | None) -> tuple[dict, int, dict[str, str]]:
    """Files that can be put beside the first, its number of studies, and why others cannot."""
    name, first = next(iter(files.items()))
    n_asked = len(common_rows({name: first}, **asked)[name])
    met, refused = {name: first}, {}
    for other, e in files.items():
        try:
            common_rows({name: first, other: e}, **asked)
            met[other] = e
        except ValueError as error:
            refused[other] = str(error)
    if len(met) == 1 and refused:
        common_rows(files, **asked)  # nothing is left to compare: its message is the error
    return met, n_asked, refused
