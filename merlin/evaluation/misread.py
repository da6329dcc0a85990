"""The most confident errors by a stated rule, and where in the volume each is to be seen.

The rule: of every finding the one miss (stated, called absent) and the one false alarm (denied, called
present) that lie farthest beyond the threshold, in standard deviations of that finding's scores; of these
the farthest, at most one a study.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from scipy import ndimage

from merlin.data.extract import label_report, mentions, report_sentences, split_sections
from merlin.data.labels import label_on_grid
from merlin.data.scan import Volume
from merlin.data.slices import images_to_table, three_planes
from merlin.data.volume import load_volume
from merlin.evaluation.subgroups import Task
from merlin.vocabulary import FINDINGS_OF, LABEL

PLANES = ("sagittal", "coronal", "axial")  # by the axis of an array (R, A, S) that they cut
MISS, ALARM = "miss", "false alarm"
PIXEL_MM = 2.5
# The structure about which a finding is looked for, where nobody knows its place; none: the scan's middle.
LOOKED_AT = {
    "submucosal_edema": "colon",
    "renal_hypodensities": "kidney_right",
    "aortic_valve_calcification": "heart",
    "coronary_calcification": "heart",
    "thrombosis": "inferior_vena_cava",
    "metastatic_disease": "liver",
    "pancreatic_atrophy": "pancreas",
    "renal_cyst": "kidney_right",
    "osteopenia": "vertebrae",
    "surgically_absent_gallbladder": "gallbladder",
    "atelectasis": "lung_right",
    "abdominal_aortic_aneurysm": "aorta",
    "hiatal_hernia": "stomach",
    "lymphadenopathy": "aorta",
    "prostatomegaly": "prostate",
    "biliary_ductal_dilation": "liver",
    "cardiomegaly": "heart",
    "splenomegaly": "spleen",
    "hepatomegaly": "liver",
    "atherosclerosis": "aorta",
    "ascites": "liver",
    "pleural_effusion": "lung_right",
    "hepatic_steatosis": "liver",
    "appendicitis": "colon",
    "gallstones": "gallbladder",
    "hydronephrosis": "kidney_right",
    "bowel_obstruction": "small_bowel",
    "free_air": "liver",
    "fracture": "vertebrae",
}


@dataclass(frozen=True)
class Frame:
    """One slice in the patient's space.

    Attributes
    ----------
    plane : str
    shape : (3,) int
        Pixels along R, A, S; one across the plane.
    middle_mm : (3,) float
        RAS.
    """

    plane: str
    shape: tuple[int, int, int]
    middle_mm: tuple[float, float, float]


class Placed(Protocol):
    """Where a phantom holds a finding: `merlin.phantom.where.Drawn`."""

    def middle(self, axis: int) -> np.ndarray | None:
        """RAS, mm."""

    def on(
        self, shape: tuple[int, int, int], middle_mm: tuple[float, float, float], pixel_mm: float
    ) -> np.ndarray:
        """What it changes on a slice."""


def errors(task: Task) -> pd.DataFrame:
    """Every miss and false alarm: `kind, finding, study_id, patient_id, score, beyond`, farthest first.

    `beyond` is the distance from the threshold in standard deviations of the finding's scores.
    """
    if task.threshold is None:
        raise ValueError(f"{task.name}: no threshold, so nothing is called")
    score, limit = task.scores[0], task.threshold
    beyond = (score - limit) / np.maximum(score.std(0), 1e-12)
    tables = []
    for kind, wrong in (
        (MISS, (task.truth == 1) & (score <= limit)),
        (ALARM, (task.truth == 0) & (score > limit)),
    ):
        study, label = np.nonzero(wrong)
        about = dict(kind=kind, finding=np.array(task.labels, object)[label])
        about |= dict(study_id=task.study_id[study], patient_id=task.patient_id[study])
        at = dict(score=score[study, label], beyond=np.abs(beyond[study, label]))
        tables.append(pd.DataFrame(about | at))
    made = pd.concat(tables, ignore_index=True)
    return made.sort_values("beyond", ascending=False, kind="stable", ignore_index=True)


def most_confident(wrong: pd.DataFrame, *, n: int) -> pd.DataFrame:
    """`n` misses and `n` false alarms by the rule, with how many errors of that kind the finding has."""
    size = wrong.groupby(["kind", "finding"])["score"].transform("size")
    wrong = wrong.assign(n_of_kind=size)
    kept: list[dict] = []
    for kind in (MISS, ALARM):
        part = wrong[wrong["kind"] == kind].drop_duplicates("finding")
        taken = {r["study_id"] for r in kept}
        part = part[~part["study_id"].isin(taken)].drop_duplicates("study_id")
        kept += part.head(n).to_dict("records")
    return pd.DataFrame(kept, columns=[*wrong])


def against_truth(task: Task, severity: pd.DataFrame) -> pd.DataFrame:
    """What is really there where the network and the report agree and where they do not.

    Parameters
    ----------
    task : Task
    severity : DataFrame
        By study id, a column a finding: 0 where nothing was drawn, else up to 1.

    Returns
    -------
    DataFrame
        `called, n, drawn, severity`: how many, the share in which the finding is there, and the median
        severity of those.
    """
    if severity.empty or task.threshold is None:
        return pd.DataFrame(columns=["called", "n", "drawn", "severity"])
    there = severity.reindex(index=task.study_id, columns=list(task.labels)).to_numpy(float)
    called, rows = task.scores[0] > task.threshold, []
    for name, use in (
        ("hit", (task.truth == 1) & called),
        (MISS, (task.truth == 1) & ~called),
        (ALARM, (task.truth == 0) & called),
        ("rightly absent", (task.truth == 0) & ~called),
    ):
        part = there[use]
        drawn = part[part > 0]
        share = len(drawn) / len(part) if len(part) else np.nan
        rows.append((name, len(part), share, np.median(drawn) if len(drawn) else np.nan))
    return pd.DataFrame(rows, columns=["called", "n", "drawn", "severity"])


def sentence(report: str, finding: str, kind: str) -> str:
    """What a report says of a finding: the sentence that states or denies it, or else its section."""
    report = report if isinstance(report, str) else ""
    if kind == MISS:
        said = [s for s, where in mentions(report) if finding in where]
    else:
        said = [s for s in report_sentences(report) if label_report(s)[finding] == 0]
    if said:
        return " ".join(said[0].split())
    section = next((s for s, names in FINDINGS_OF.items() if finding in names), "")
    return split_sections(report).get(section, "") or "no sentence of its own: by the label alone"


def framed(plane: str, middle_mm: np.ndarray, width_mm: float) -> Frame:
    """A slice of 4 to 3 about a point."""
    axis = PLANES.index(plane)
    shape = np.full(3, round(0.75 * width_mm / PIXEL_MM))
    shape[1 if axis == 0 else 0] = round(width_mm / PIXEL_MM)
    shape[axis] = 1
    r, a, s = (float(x) for x in middle_mm)
    return Frame(plane, tuple(shape.tolist()), (r, a, s))


def middle_of(volume: Volume, label_map: str, finding: str) -> tuple[np.ndarray, str]:
    """Where to look for a finding (RAS, mm), and what that is the middle of."""
    middle, name = (np.array(volume.hu.shape) - 1) / 2, "the scan"
    organ = LOOKED_AT.get(finding)
    if label_map and organ:
        label = label_on_grid(label_map, volume.affine, volume.hu.shape)
        inside = np.argwhere(label == LABEL[organ])
        if len(inside):  # the voxel of the organ that is nearest to its centre
            centre = inside.mean(0)
            middle = inside[((inside - centre) ** 2).sum(1).argmin()]
            name = organ.replace("_", " ")
    return volume.affine[:3, :3] @ middle + volume.affine[:3, 3], name


def picture(volume: Volume, frame: Frame) -> np.ndarray:
    """(rows, columns) HU of a frame, turned for display; air outside the scan."""
    at = [(np.arange(n) - (n - 1) / 2) * PIXEL_MM for n in frame.shape]
    points = np.stack(np.meshgrid(*at, indexing="ij")).reshape(3, -1)
    points += np.array(frame.middle_mm)[:, None]
    inverse = np.linalg.inv(volume.affine)
    index = inverse[:3, :3] @ points + inverse[:3, 3:]
    hu = ndimage.map_coordinates(volume.hu.astype(np.float32), index, order=1, cval=-1000.0)
    return turned(hu.reshape(frame.shape), frame.plane)


def turned(one_slice: np.ndarray, plane: str) -> np.ndarray:
    """A slice of an array (R, A, S) as it is displayed."""
    return three_planes(one_slice, (0, 0, 0))[2 - PLANES.index(plane)]


def told(case: Mapping, severity: pd.DataFrame) -> str:
    """What the phantom really holds of a case; empty where nobody knows."""
    if severity.empty or case["study_id"] not in severity.index:
        return ""
    there = severity.loc[case["study_id"]].get(case["finding"], 0.0)
    is_missed = case["kind"] == MISS
    if there > 0:
        found = f"drawn with severity {there:.2f}"
        return found if is_missed else f"{found}: the report is wrong"
    return "not drawn: the report is wrong" if is_missed else "not drawn"


def cases(
    worst: pd.DataFrame, studies: pd.DataFrame, severity: pd.DataFrame,
    seen: Mapping[str, tuple[str, str, float]], drawn: Callable[..., Placed] | None = None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """The picture of each error in the plane and window where its finding is seen, and what is known of it.

    Parameters
    ----------
    worst : DataFrame
        From `most_confident`.
    studies : DataFrame
        The manifest by study id, with `volume`, and `label_map` and `findings` where it has them.
    severity : DataFrame
        As in `against_truth`; may be empty.
    seen : dict of finding to (plane, window, width in mm)
    drawn : callable, optional
        Study id, patient id, site and finding → where a phantom holds it.

    Returns
    -------
    dict
        "": a row a case, without ids; `slices`: the scan, and what the finding changes in it (0 or 1).
        Empty where there is no volume.
    """
    rows, pictures = [], {}
    if "volume" not in studies:
        worst = worst[:0]
    for number, case in enumerate(worst.to_dict("records")):
        study, name = studies.loc[case["study_id"]], case["finding"]
        plane, window, width_mm = seen[name]
        volume = load_volume(study["volume"])
        is_there = len(severity) and severity[name].get(case["study_id"], 0) > 0
        middle, about = None, "the finding"
        if drawn and is_there:
            placed = drawn(case["study_id"], case["patient_id"], study["site"], name)
            middle = placed.middle(PLANES.index(plane))
        if middle is None:
            own = study.get("label_map")
            middle, about = middle_of(volume, own if isinstance(own, str) else "", name)
        frame = framed(plane, middle, width_mm)
        pictures[f"{number}|scan"] = picture(volume, frame)
        if about == "the finding":
            mask = placed.on(frame.shape, frame.middle_mm, PIXEL_MM)
            pictures[f"{number}|there"] = turned(mask, plane).astype(float)
        said = sentence(study.get("findings"), name, case["kind"])
        kept = {k: case[k] for k in ("kind", "finding", "score", "beyond", "n_of_kind")}
        kept |= dict(plane=plane, window=window, middle_of=about, report=said)
        rows.append(dict(case=number) | kept | dict(truth=told(case, severity)))
    columns = ["case", "kind", "finding", "score", "beyond", "n_of_kind", "plane", "window",
               "middle_of", "report", "truth"]  # fmt: skip
    made = {"": pd.DataFrame(rows, columns=columns)}
    return made | ({"slices": images_to_table(pictures)} if pictures else {})
