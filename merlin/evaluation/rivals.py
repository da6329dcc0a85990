"""Rivals that need no text and no network of ours, and the ceiling: penalised regressions, fairly fitted.

What age and sex tell, what a ruler tells (`merlin.data.measurements`), what a classifier that is given the
labels reads from our frozen features, and, on phantoms, what the truth tells. Each is fitted on training
studies, its penalty chosen on validation, and judged on the studies and resamples that judge ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from merlin.evaluation import phenotypes, results, zero_shot
from merlin.evaluation.regression import WIDE, logistic
from merlin.statistics import bootstrap, metrics

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's `C`: smaller is stricter

_NOTHING = pd.DataFrame()


@dataclass(frozen=True)
class Known:
    """What is known of each study of the training site beside its embeddings; a table each, by study id.

    Attributes
    ----------
    studies : DataFrame
        The manifest, all splits.
    measured, features : DataFrame
        Organs (`merlin.data.measurements`), and what an arm's frozen encoder says. Empty where nobody made
        them; studies may be missing.
    truth, traits : DataFrame
        Of phantoms: severity by finding (0: absent); what patients carry, and `risk DISEASE`.
    """

    studies: pd.DataFrame = field(default_factory=pd.DataFrame)
    measured: pd.DataFrame = field(default_factory=pd.DataFrame)
    features: pd.DataFrame = field(default_factory=pd.DataFrame)
    truth: pd.DataFrame = field(default_factory=pd.DataFrame)
    traits: pd.DataFrame = field(default_factory=pd.DataFrame)

    def rows(self, split: str) -> np.ndarray:
        """Positions of a split's studies."""
        return np.flatnonzero(self.studies["split"] == split) if len(self.studies) else np.arange(0)

    def at(self, study_ids: np.ndarray) -> np.ndarray:
        """Positions of studies by id."""
        return self.studies.index.get_indexer(study_ids)


def person(studies: pd.DataFrame, columns: Sequence[str] = ("age", "sex")) -> pd.DataFrame:
    """Age as a number, other columns as one 0/1 column a value; unknown is NaN.

    Raises
    ------
    KeyError
        Naming a column that the studies lack.
    """
    made = []
    for name in columns:
        column = studies[name]
        if name == "age":
            made.append(column.astype(float).rename(name))
            continue
        for value in sorted(column.dropna().unique())[1:]:
            is_so = (column == value).astype(float).where(column.notna())
            made.append(is_so.rename(f"{name} {value}"))
    return pd.concat(made, axis=1)


def inputs(known: Known) -> dict[str, pd.DataFrame]:
    """What each rival is given, a row a study of `known.studies`; empty where it is not known.

    Returns
    -------
    dict of str to DataFrame
        `age_sex`, `age_sex_phase`, `organs` (the image through a ruler), `organs_person` (with age, sex
        and phase), `probe` (our frozen features), `truth`, `truth_traits`.
    """
    studies = known.studies

    def of_person(*columns: str) -> pd.DataFrame:
        return person(studies, columns) if set(columns) <= set(studies) else _NOTHING

    def beside(*tables: pd.DataFrame) -> pd.DataFrame:
        if any(t.empty for t in tables):
            return _NOTHING
        return pd.concat([t.reindex(studies.index) for t in tables], axis=1)

    who, how = of_person("age", "sex"), of_person("age", "sex", "phase")
    carried = known.traits[[c for c in known.traits if not c.startswith("risk ")]]
    return {
        "age_sex": who,
        "age_sex_phase": how,
        "organs": beside(known.measured),
        "organs_person": beside(how, known.measured),
        "probe": beside(known.features),
        "truth": beside(known.truth),
        "truth_traits": beside(how, known.truth, carried),
    }


CALLED = {  # in tables and figures
    "age_sex": "age and sex",
    "age_sex_phase": "age, sex, phase",
    "organs": "organ measurements",
    "organs_person": "organs, age, sex, phase",
    "probe": "supervised probe",
    "truth": "true findings",
    "truth_traits": "true findings and traits",
}
ABSENT = {
    "age_sex": "the manifest has no age and sex",
    "age_sex_phase": "the manifest has no age, sex and phase",
    "organs": "no label maps to measure",
    "organs_person": "no label maps to measure, or no age, sex and phase",
    "probe": "no features of the training studies",
    "truth": "no truth is known of real studies",
    "truth_traits": "no truth is known of real studies",
}


@dataclass(frozen=True)
class Fitted:
    """A rival's word on every study.

    Attributes
    ----------
    probability : (n_studies, n_labels) float
    c : float
        The penalty that validation chose.
    val_auroc : float
        Its mean AUROC there.
    """

    probability: np.ndarray
    c: float
    val_auroc: float


def fit(
    x: np.ndarray, labels: np.ndarray, *, train: np.ndarray, val: np.ndarray,
    n_free: int = 0,
) -> Fitted:  # fmt: skip
    """Fit on training rows; of the penalties, take that of the best mean AUROC on validation rows.

    Parameters
    ----------
    x : (n_studies, k) float
    labels : (n_studies, n_labels) float
        1, 0 or NaN.
    train, val : (n,) int
        Rows.
    n_free : int
        As in `logistic`.
    """
    tried = []
    for c in PENALTIES if x.shape[1] <= WIDE else PENALTIES[:-1]:
        p = logistic(x[train], labels[train], x, c=c, n_free=n_free)
        tried.append(Fitted(p, c, mean_auroc(p[val], labels[val])))
    return max(tried, key=lambda f: np.nan_to_num(f.val_auroc))


def mean_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean AUROC over labels that hold both classes; NaN where there is none."""
    scores = np.where(np.isnan(scores), 0.0, scores)
    found = metrics.auroc(scores, labels)[:, 0] if len(labels) else np.array([np.nan])
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def fit_all(
    given: Mapping[str, pd.DataFrame], labels: np.ndarray, known: Known
) -> dict[str, Fitted]:
    """`fit` of every rival that is given something, on the training split."""
    train, val = known.rows("train"), known.rows("val")
    return {
        name: fit(x.to_numpy(float), labels, train=train, val=val)
        for name, x in given.items()
        if not x.empty
    }


def choices(fitted: Mapping[str, Fitted], given: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`rival, n_inputs, c, val_auroc`: what validation chose, or why a rival is not there."""
    rows = [
        dict(rival=n, n_inputs=x.shape[1], c=fitted[n].c, val_auroc=fitted[n].val_auroc, reason="")
        if n in fitted
        else dict(rival=n, n_inputs=0, c=np.nan, val_auroc=np.nan, reason=ABSENT[n])
        for n, x in given.items()
    ]
    return pd.DataFrame(rows, columns=["rival", "n_inputs", "c", "val_auroc", "reason"])


def findings(
    known: Known, names: Sequence[str], study_ids: np.ndarray, patient_ids: np.ndarray,
    labels: np.ndarray, *, n_resamples: int, n_draws: int, seed: int,
) -> tuple[pd.DataFrame, dict, pd.DataFrame]:  # fmt: skip
    """Rivals of zero-shot findings: taught by what training reports state, judged as ours.

    Their thresholds for F1 are those of the best F1 on validation. `truth` is not fitted: a finding's
    severity as drawn, 0 where absent, against what reports state. It is what a perfect reader of the image
    would get, since reports are silent about some findings and wrong about others.

    Parameters
    ----------
    known : Known
    names : sequence of str
        Findings.
    study_ids, patient_ids : (n,) str
        Of the judged studies.
    labels : (n, n_findings) float
        Theirs.

    Returns
    -------
    table : DataFrame
        Common schema; a rival that is not there has one row with the reason.
    drawn : dict of str to dict of str to (1 + n_resamples,) float
    chosen : DataFrame
        `choices`.
    """
    given = {k: x for k, x in inputs(known).items() if k not in ("truth", "truth_traits")}
    taught = _labels(known, [f"label_{n}" for n in names])
    fitted, at, val = fit_all(given, taught, known), known.at(study_ids), known.rows("val")
    options = dict(split="test", n_resamples=n_resamples, n_draws=n_draws, seed=seed)
    tables: list[pd.DataFrame] = []
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for name, f in fitted.items():
        # A rival without a probability (training labels of one class) says the same of every study.
        p = np.where(np.isnan(f.probability), 0.5, f.probability)
        tables.append(_judged_findings(
            names, p[at], labels, patient_ids, drawn, model=name,
            thresholds=metrics.best_f1_threshold(p[val], taught[val]), **options,
        ))  # fmt: skip
    if len(known.truth):
        severity = (
            known.truth.reindex(index=study_ids, columns=list(names)).fillna(0).to_numpy(float)
        )
        tables.append(_judged_findings(
            names, severity, labels, patient_ids, drawn, model="truth", thresholds=0.0, **options
        ))  # fmt: skip
    tables.append(_not_there("zero-shot findings", [*given, "truth"], drawn))
    return pd.concat(tables, ignore_index=True), drawn, choices(fitted, given)


def _judged_findings(names, scores, labels, patient_ids, drawn, *, model, **options):
    table, drawn[model] = zero_shot.evaluate(
        zero_shot.Scores(tuple(names), scores), labels, patient_ids, model=model, **options
    )
    return table.assign(wording="reported")


def codes(
    known: Known, phecodes: Sequence[str], taught: np.ndarray, study_ids: np.ndarray,
    patient_ids: np.ndarray, labels: np.ndarray, *, min_positive: int, n_resamples: int, seed: int,
) -> tuple[pd.DataFrame, dict, pd.DataFrame]:  # fmt: skip
    """Rivals of the phecode head, taught by the training studies' codes, and two ceilings.

    `truth` knows each finding as it was drawn; `truth_traits` also what the patient carries, age, sex and
    phase. Both are regressions: a ceiling up to what these can say.

    Parameters
    ----------
    taught : (n_known, n_phecodes) float
        Labels of all of `known.studies`.
    study_ids, patient_ids : (n,) str
    labels : (n, n_phecodes) float
        Of the judged studies.

    Returns what `findings` does.
    """
    given = inputs(known)
    if not np.isfinite(taught[known.rows("train")]).any():
        given = dict.fromkeys(given, _NOTHING)
    fitted, at = fit_all(given, taught, known), known.at(study_ids)
    tables, drawn = [], {}
    for name, f in fitted.items():
        p = np.where(np.isnan(f.probability), 0.5, f.probability)
        made, drawn[name] = phenotypes.evaluate(
            p[at], labels, patient_ids, phecodes, model=name, split="test",
            min_positive=min_positive, n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
        tables.append(made)
    tables.append(_not_there("phenotypes", list(given), drawn))
    return pd.concat(tables, ignore_index=True), drawn, choices(fitted, given)


def reading(paired: pd.DataFrame, metric: str = "auroc") -> str:
    """What the main arm is above or below each rival, in words: of a table of `by_arm.differences`."""
    said = []
    for r in paired[paired["metric"] == metric].itertuples():
        name = r.difference.removeprefix("main − ")
        if name in CALLED.values() and not np.isnan(r.low):
            verdict = "above" if r.low > 0 else "below" if r.high < 0 else "not set apart from"
            said.append(f"{verdict} {name} ({r.value:+.3f} [{r.low:.3f}, {r.high:.3f}])")
    return f" Macro {metric.upper()} of the main arm is {'; '.join(said)}." if said else ""


def diseases(
    known: Known, frozen: Mapping[str, Sequence[pd.DataFrame]], labels: np.ndarray,
    shares: Mapping[float, np.ndarray], names: Sequence[str],
) -> tuple[dict[tuple[str, float], np.ndarray], pd.DataFrame]:  # fmt: skip
    """Rivals of fine-tuning for five-year diseases, each taught by every share of the labels.

    Parameters
    ----------
    known : Known
    frozen : dict of str to sequence of DataFrame
        What the encoder of each beginning says of each study, left as it begins, a table a seed. Each
        becomes `START_frozen`; ours also `merlin_frozen_person`, with age and sex, which the penalty
        hardly touches.
    labels : (n_known, n_diseases) float
        1, 0 or NaN.
    shares : dict of float to (n,) int
        Training rows, by share. The penalty is chosen on the whole of validation.
    names : sequence of str
        Diseases, for `true_risk`: what the phantom knows, not taught, under the largest share.

    Returns
    -------
    predicted : dict of (start, share) to (n_seeds, n_known, n_diseases) float
    chosen : DataFrame
        `start, fraction, c, val_auroc`, of the first seed.
    """
    given: dict[str, tuple[list[pd.DataFrame], int]] = {}
    for start, tables in frozen.items():
        given[f"{start}_frozen"] = [t.reindex(known.studies.index) for t in tables], 0
    of_rivals = inputs(known)
    who = of_rivals["age_sex"]
    if "merlin_frozen" in given and not who.empty:
        beside = [pd.concat([who, t], axis=1) for t in given["merlin_frozen"][0]]
        given["merlin_frozen_person"] = beside, who.shape[1]
    for name in ("age_sex", "age_sex_phase", "organs", "organs_person"):
        if not of_rivals[name].empty:
            given[name] = [of_rivals[name]], 0
    predicted, chosen = {}, []
    for share, train in shares.items():
        for start, (tables, n_free) in given.items():
            fitted = [
                fit(t.to_numpy(float), labels, train=train, val=known.rows("val"), n_free=n_free)
                for t in tables
            ]
            predicted[start, share] = np.stack([f.probability for f in fitted])
            chosen.append((start, share, fitted[0].c, fitted[0].val_auroc))
    risks = [f"risk {d}" for d in names]
    if set(risks) <= set(known.traits):
        known_risk = known.traits.reindex(known.studies.index)[risks].to_numpy(float)
        predicted["true_risk", max(shares)] = known_risk[None]
    return predicted, pd.DataFrame(chosen, columns=["start", "fraction", "c", "val_auroc"])


def by_own_maps(
    known: Known, own: pd.DataFrame, taught: Mapping[str, np.ndarray], *, min_positive: int = 5,
    n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """What organ measurements lose where a network drew the organs: `organs`, fitted once on true maps.

    Parameters
    ----------
    known : Known
    own : DataFrame
        Measurements of the network's label maps, by study id: of test studies.
    taught : dict of str to (n_known, n_labels) float
        Labels by task. A label needs `min_positive` of either class among the studies of `own`.

    Returns
    -------
    DataFrame
        `task, n_labels, n_studies, true_maps, own_maps, value, low, high`: macro AUROCs, and own minus
        true maps on the same resamples. A task without labels has no row.
    """
    at = known.at(own.index.to_numpy(str))
    names = ["task", "n_labels", "n_studies", "true_maps", "own_maps", "value", "low", "high"]
    if known.measured.empty or not len(own):
        return pd.DataFrame(columns=names)
    true = known.measured.reindex(known.studies.index)
    x = np.concatenate([true.to_numpy(float), own[[*true]].to_numpy(float)])
    patients = known.studies["patient_id"].iloc[at].to_numpy(str)
    weights = results.resampling(patients, n_resamples, seed=seed)
    rows = []
    for task, labels in taught.items():
        y = labels[at]
        few = np.minimum((y == 1).sum(0), (y == 0).sum(0)) < min_positive
        if few.all():
            continue
        every = np.concatenate([labels, y])
        p = fit(x, every, train=known.rows("train"), val=known.rows("val")).probability
        keep = ~few & np.isfinite(p).all(0)
        drawn = [
            bootstrap.macro(metrics.auroc(part[:, keep], y[:, keep], weights))
            for part in (p[at], p[len(true) :])
        ]
        gap = results.ends(results.difference(drawn[1], drawn[0], n=len(set(patients))))
        rows.append((task, int(keep.sum()), len(at), drawn[0][0], drawn[1][0], *gap))
    return pd.DataFrame(rows, columns=names)


def _labels(known: Known, columns: Sequence[str]) -> np.ndarray:
    """(n_known, n) of the manifest's columns; NaN where it has none."""
    return known.studies.reindex(columns=list(columns)).to_numpy(float)


def _not_there(task: str, names: Sequence[str], drawn: Mapping) -> pd.DataFrame:
    """A row for each rival that was not judged, with its reason."""
    rows = [results.missing("macro", "auroc", ABSENT[n], model=n) for n in names if n not in drawn]
    return pd.DataFrame(rows).assign(task=task, split="test") if rows else pd.DataFrame()
