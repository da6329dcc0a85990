"""The job of `18_causes`: test patients drawn again with one thing changed, scored, and looked back through.

    python -m merlin.jobs.causes smoke main

Each patient is drawn as he is, without each of his findings, with some of them fainter, older, and with the
other sex's anatomy, straight on the grid of the arm's network. Scores are those of `04_zero_shot_findings`.
Leaves the tables of `causes_kept` in `runs/PROFILE/causes/`; no scan is kept.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from merlin import jobs, run
from merlin.data.preprocess import Grid
from merlin.data.slices import images_to_table, three_planes
from merlin.evaluation import counterfactual
from merlin.jobs import causes_kept
from merlin.model import gradients
from merlin.model.cpu import prepare_cpu
from merlin.model.i3d import ImageEncoder
from merlin.model.two_towers import TwoTowers, feature_shape
from merlin.phantom import interventions, pool, synthesis
from merlin.phantom.synthesis import Study
from merlin.training import adapt, diseases, encode
from merlin.training.checkpoint import load_weights
from merlin.training.texts import TextCache
from merlin.vocabulary import NAMES

CHANGED_HU = 25.0  # by which a voxel differs that a finding changes, as in the gallery of 01_cohort
HU_RANGE = 2000.0  # of the input's 0 to 1
# The paper's two examples of a latent shift, and the plane that shows each.
SHIFTED = {"pleural_effusion": "axial", "splenomegaly": "coronal"}
DOSED_TO = 0.5  # severity up to which further scans are drawn; grosser ones are common as they come
AT_ONCE = 16  # volumes
N_SETTLING = 32  # scans for the batch norms of random weights

Draw = Callable[[Study], np.ndarray]  # (R, A, S) float32 in [0, 1]


@dataclass(frozen=True)
class Judge:
    """A trained network, one of its kind with random weights, and what both are asked.

    Attributes
    ----------
    encoders : dict of str to ImageEncoder
        `counterfactual.TRAINED` and `counterfactual.RANDOM`, in evaluation mode.
    directions : (n_findings, D) tensor
        Mean presence minus mean absence prompt of each of `NAMES`; a score is the product with it.
    """

    encoders: dict[str, ImageEncoder]
    directions: torch.Tensor

    def tensor(self, images: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
        """(n, 1, R, A, S) on the network's device."""
        return torch.from_numpy(np.stack(list(images)))[:, None].to(self.directions.device)

    def scores(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(n, n_findings) float of (R, A, S) images."""
        parts = [images[a : a + AT_ONCE] for a in range(0, len(images), AT_ONCE)]
        encoder, found = self.encoders[counterfactual.TRAINED], [np.empty((0, len(NAMES)))]
        with torch.inference_mode():
            for part in parts:
                score = gradients.score(encoder, self.tensor(part), self.directions.T)
                found.append(score.cpu().numpy())
        return np.concatenate(found)


def judge_of(model: TwoTowers, cache: Path | None, *, settle_on: np.ndarray, seed: int) -> Judge:
    """A trained model as a judge.

    Parameters
    ----------
    model : TwoTowers
    cache : path or None
        Of sentences.
    settle_on : (n, R, A, S) float32
        Scans that give the batch norms of the random twin their statistics.
    seed : int
        Of the random weights.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bank, _ = encode.encode_prompts(model, TextCache(model.encode_text, cache))
    vector, finding, kind, wording = (
        bank[f"prompt_{k}"] for k in ("embedding", "finding", "kind", "wording")
    )

    def mean(name: str, side: str) -> np.ndarray:
        return vector[(finding == name) & (kind == side) & (wording == "reported")].mean(0)

    directions = np.stack([mean(n, "present") - mean(n, "absent") for n in NAMES])
    torch.manual_seed(seed)
    config = model.config
    twin = ImageEncoder(config.image, feature_shape=feature_shape(config.image, config.grid_shape))
    read = torch.from_numpy(settle_on)[:, None]
    diseases.settle_norms(twin, lambda index: read[index], len(read))
    encoders = {counterfactual.TRAINED: model.encode_image, counterfactual.RANDOM: twin}
    for encoder in encoders.values():
        encoder.to(device).eval().requires_grad_(False)
    return Judge(encoders, torch.from_numpy(directions).to(device))


def chosen(
    seed: int, patient_ids: Iterable[str], names: Sequence[str], n: int, at_least: int
) -> tuple[list[Study], dict[str, list[Study]]]:
    """The first scans of patients in random order, until every finding has `n` of them.

    Returns
    -------
    studies : list of Study
        All that serve a finding, and the first `at_least` in any case.
    having : dict of str to list of Study
        The first `n` with each finding, or as many as there are.
    """
    order = sorted(patient_ids)
    synthesis.stream(seed, "causes").shuffle(order)
    site, studies = synthesis.SITES["internal"], []
    having: dict[str, list[Study]] = {name: [] for name in names}
    for number, patient_id in enumerate(order):
        if number >= at_least and all(len(s) == n for s in having.values()):
            break
        patient = synthesis.draw_patient(seed, patient_id, site)
        study = synthesis.draw_study(seed, f"{patient_id}-1", patient, site)
        serves = [k for k in names if k in study.found and len(having[k]) < n]
        for name in serves:
            having[name].append(study)
        if serves or number < at_least:
            studies.append(study)
    return studies, having


def make_tables(
    settings: SimpleNamespace, studies: Sequence[Study], having: dict[str, list[Study]],
    judge: Callable[[np.ndarray], Judge], draw: Draw,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """All tables of the job.

    Parameters
    ----------
    settings : SimpleNamespace
        Of `18_causes`.
    studies, having
        From `chosen`.
    judge : callable
        Some scans → Judge.
    draw : callable
        A study → its scan on the network's grid.
    """
    images = {
        s.study_id: draw(s) for s in tqdm(studies, desc="patients as they are", mininterval=5)
    }
    some = np.stack([images[s.study_id] for s in studies[:N_SETTLING]])
    eyes = judge(some)
    told = {s.study_id: v for s, v in zip(studies, eyes.scores(list(images.values())), strict=True)}
    rows = [_row(s, counterfactual.AS_DRAWN, told[s.study_id]) for s in studies]
    doses: list[dict] = []
    seen: list[dict] = []
    moved: list[dict] = []
    pictures: dict[str, np.ndarray] = {}
    for name in tqdm(list(having), desc="findings taken out", mininterval=5):
        ill = having[name]
        gone = [draw(interventions.without(s, name)) for s in ill]
        scores = eyes.scores(gone)
        rows += [_row(s, name, v) for s, v in zip(ill, scores, strict=True)]
        column = NAMES.index(name)
        doses += _doses(settings, name, ill, told, scores[:, column], eyes, draw)
        first = list(zip(ill, (images[s.study_id] for s in ill), gone, strict=True))
        first = first[: settings.n_gradients]
        if first:
            seen += _gradients(name, first, eyes)
        if first and name in SHIFTED:
            courses, shown = _shifts(settings, name, first, eyes)
            moved += courses
            pictures |= shown
    rows += _persons(settings, studies[: settings.n_persons], eyes, draw)
    none = pd.DataFrame(columns=["finding", "step"])  # where neither example was asked for
    return {
        "scores": pd.DataFrame(rows), "doses": pd.DataFrame(doses), "gradients": pd.DataFrame(seen),
        "shifts": pd.DataFrame(moved) if moved else none,
        "slices": images_to_table(pictures) if pictures else pd.DataFrame(columns=["panel"]),
    }  # fmt: skip


def _row(study: Study, change: str, scores: np.ndarray) -> dict:
    who = dict(study_id=study.study_id, patient_id=study.patient.patient_id, sex=study.patient.sex)
    return who | dict(age=study.age, change=change) | dict(zip(NAMES, scores, strict=True))


def _persons(
    settings: SimpleNamespace, studies: Sequence[Study], eyes: Judge, draw: Draw
) -> list[dict]:
    """Rows of patients who differ in age alone, or in sex alone; findings of one sex sit out."""
    changed = [(s, counterfactual.OLDER, interventions.older(s, settings.years)) for s in studies]
    free = [s for s in studies if "prostatomegaly" not in s.found]
    changed += [(s, counterfactual.OTHER_SEX, interventions.other_sex(s)) for s in free]
    scores = eyes.scores([draw(new) for _, _, new in changed])
    # Sex and age of the patient as drawn: the change says the rest.
    return [_row(s, change, v) for (s, change, _), v in zip(changed, scores, strict=True)]


def _doses(
    settings: SimpleNamespace, name: str, ill: Sequence[Study], told: dict[str, np.ndarray],
    without: np.ndarray, eyes: Judge, draw: Draw,
) -> list[dict]:  # fmt: skip
    """Rows of a finding as it came, without it, and drawn fainter, at severities spread evenly."""
    seed, column, n = settings.cohort_seed, NAMES.index(name), settings.n_faint
    low = interventions.DOSES[name].faintest
    places = (np.arange(n * len(ill)) + 0.5) / max(n * len(ill), 1)
    synthesis.stream(seed, "causes", name).shuffle(places)
    severities = low + (DOSED_TO - low) * places
    faint = [
        interventions.dosed(s, name, float(v))
        for s, v in zip([s for s in ill for _ in range(n)], severities, strict=True)
    ]
    scores = eyes.scores([draw(s) for s in faint])[:, column]

    def row(study: Study, score: float, kind: str) -> dict:
        is_there = kind != counterfactual.WITHOUT
        severity = study.found[name].severity if is_there else np.nan
        dose = interventions.dose(seed, study, name) if is_there else np.nan
        who = dict(finding=name, study_id=study.study_id, patient_id=study.patient.patient_id)
        return who | dict(kind=kind, severity=severity, dose=dose, score=float(score))

    rows = [row(s, told[s.study_id][column], counterfactual.AS_DRAWN) for s in ill]
    rows += [row(s, v, counterfactual.FAINTER) for s, v in zip(faint, scores, strict=True)]
    return rows + [row(s, v, counterfactual.WITHOUT) for s, v in zip(ill, without, strict=True)]


Pair = tuple[Study, np.ndarray, np.ndarray]  # a study, its scan, and the scan without the finding


def _truth(image: np.ndarray, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, A, S) bool: voxels that the finding changes, and the body, of which they are part."""
    changed = np.abs(image - gone) * HU_RANGE > CHANGED_HU
    return changed, counterfactual.inside_body(image) | changed


def _gradients(name: str, pairs: Sequence[Pair], eyes: Judge) -> list[dict]:
    """Where the gradient of a finding's score lies, of both networks, in scans that have it."""
    volume, direction = eyes.tensor([p[1] for p in pairs]), eyes.directions[NAMES.index(name)]
    truths, rows = [_truth(image, gone) for _, image, gone in pairs], []
    for model, encoder in eyes.encoders.items():
        _, gradient = gradients.of_score(encoder, volume, direction)
        answers = gradient[:, 0].cpu().numpy()
        for (study, _, _), answer, truth in zip(pairs, answers, truths, strict=True):
            who = dict(finding=name, patient_id=study.patient.patient_id, model=model)
            ml = dict(changed_voxels=int(truth[0].sum()))
            rows.append(who | counterfactual.pointing(answer, *truth) | ml)
    return rows


def _shifts(
    settings: SimpleNamespace, name: str, pairs: Sequence[Pair], eyes: Judge
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Scans moved down the gradient of a finding's score, against those truly without it.

    Returns
    -------
    rows : list of dict
        A patient and step: score, size in HU, place and likeness of the change so far.
    pictures : dict of str to (rows, columns) array
        Of the first patient, `finding|what`: HU, or thousandths of the largest gradient.
    """
    images, gone = np.stack([p[1] for p in pairs]), np.stack([p[2] for p in pairs])
    truths = [_truth(*both) for both in zip(images, gone, strict=True)]
    encoder, direction = eyes.encoders[counterfactual.TRAINED], eyes.directions[NAMES.index(name)]
    wanted = eyes.scores(list(gone))[:, NAMES.index(name)]
    body = eyes.tensor([b for _, b in truths])
    step = settings.shift_hu / HU_RANGE
    start, last = np.zeros(len(pairs)), images
    course = gradients.lowered(
        encoder, eyes.tensor(images), direction, body, step=step, n_steps=settings.shift_steps
    )
    rows = []
    for k, (score, volume) in enumerate(course):
        now, last = score.cpu().numpy(), volume[:, 0].cpu().numpy()
        start = now if k == 0 else start
        for i, (study, image, without) in enumerate(pairs):
            who = dict(finding=name, patient_id=study.patient.patient_id, step=k)
            fell = dict(score=now[i] - start[i], true_score=wanted[i] - start[i])
            rows.append(who | fell | _moved(last[i] - image, without - image, *truths[i]))
    _, gradient = gradients.of_score(encoder, eyes.tensor(images[:1]), direction)
    answer = gradient[0, 0].cpu().numpy()
    views = {
        "with": images[0] * HU_RANGE - 1000, "without": gone[0] * HU_RANGE - 1000,
        "true change": (gone[0] - images[0]) * HU_RANGE, "moved": (last[0] - images[0]) * HU_RANGE,
        "gradient": 1000 * answer / max(float(np.abs(answer).max()), 1e-30),
    }  # fmt: skip
    plane, changed = ("axial", "coronal", "sagittal").index(SHIFTED[name]), truths[0][0]
    at = [int(changed.sum(tuple(j for j in range(3) if j != i)).argmax()) for i in range(3)]
    return rows, {f"{name}|{what}": three_planes(v, at)[plane] for what, v in views.items()}


def _moved(
    change: np.ndarray, true: np.ndarray, changed: np.ndarray, body: np.ndarray
) -> dict[str, float]:
    """Size, place and likeness of a change (R, A, S) beside the true one."""
    place = counterfactual.pointing(change, changed, body)
    return dict(
        moved_hu=HU_RANGE * float(np.sqrt(np.mean(change[body] ** 2))),
        true_hu=HU_RANGE * float(np.sqrt(np.mean(true[body] ** 2))),
        inside=place["inside"], chance=place["chance"],
        likeness=counterfactual.likeness(change, true, body),
    )  # fmt: skip


def make(profile: str, arm: str = "main") -> list[Path]:
    """Make the tables of an arm, unless they are there and were made from the same things; their paths.

    Raises
    ------
    ValueError
        In another tier than the phantom's.
    """
    settings = run.settings("18_causes", {"profile": profile})
    if settings.tier != "phantom":
        raise ValueError(
            f"profile {profile} is of tier {settings.tier}: only a phantom can be drawn without a finding"
        )
    marks = causes_kept.marks(settings, arm)
    if not all(run.is_kept(path, mark) for path, mark in marks.items()):
        prepare_cpu(settings.n_threads)
        made = from_files(settings, *causes_kept.inputs(settings, arm))
        for path, mark in marks.items():
            run.kept(path, mark, partial(made.__getitem__, path.stem))
    for path in marks:
        path.touch()  # newer than its inputs
    return list(marks)


def from_files(
    settings: SimpleNamespace, source: Path, weights: Path, *, split: str = "test"
) -> dict[str, pd.DataFrame]:
    """The tables of the patients of one split."""
    studies = jobs.internal(source)
    ids = studies.loc[studies["split"] == split, "patient_id"].unique()
    names = list(settings.findings or NAMES)
    if odd := sorted(set(names) - set(NAMES)):
        raise ValueError(f"18_causes.findings: {', '.join(odd)}{run.nearest(odd[0], NAMES)}")
    some, having = chosen(settings.cohort_seed, ids, names, settings.n_patients, settings.n_persons)
    grid: Grid = adapt.grid_of(weights)
    matrix = causes_kept.matrix_of(settings)
    draw = partial(pool.scan, settings.cohort_seed, matrix=matrix, grid=grid)
    model, cache = load_weights(weights)[0], run.folder(settings.profile) / "cache"

    def judge(scans: np.ndarray) -> Judge:
        return judge_of(model, cache, settle_on=scans, seed=settings.seed)

    return make_tables(settings, some, having, judge, draw)


def main() -> None:
    """The command line: a profile, and the arm whose weights are asked."""
    parser = argparse.ArgumentParser(prog="python -m merlin.jobs.causes")
    parser.add_argument("profile")
    parser.add_argument("arm", nargs="?", default="main")
    args = parser.parse_args()
    make(args.profile, args.arm)


if __name__ == "__main__":
    main()
