"""The 30 zero-shot findings as changes to a body.

Each function takes a `Body`, a severity from 0 (barely there) to 1 (gross) and a generator; it
changes the body's numbers or paints over its organs, and returns what a radiologist would dictate
of what was drawn (side, place, count, size in mm, percent, grade). Sizes are those of the picture,
after its displacement; those of enlarged organs are measured from their labels, in `measure`. Names
are those of the data release (`zero_shot_findings_disease_cls.csv`).

Prevalences are ours, chosen so that every finding can be learned and judged in a cohort of a few
thousand; they are not the paper's. Risk is a liability: age and shared factors add up, and a study
whose liability passes the finding's threshold has the finding. That is why an enlarged heart, an
effusion and anasarca keep company here as they do in hospital.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.random import Generator

from merlin.phantom import render, torso
from merlin.phantom.anatomy import in_kidney, in_liver, on_gallbladder_floor
from merlin.phantom.body import LEVELS, Body
from merlin.phantom.shapes import apart
from merlin.vocabulary import LABEL, NAMES, ONLY_SEX

Details = dict[str, float | str]  # what a radiologist would dictate
CALCIUM_HU = (450, 950)
PLAQUE = dict(regions=torso.ANYWHERE, label=render.KEEP_LABEL)


def _between(low: float, high: float, severity: float) -> float:
    return low + (high - low) * severity


def _one_side(rng: Generator) -> int:
    """1, the patient's right, or -1."""
    return 1 if rng.random() < 0.5 else -1


def _sides(rng: Generator, both: float) -> tuple[int, ...]:
    """One side, or both with that chance."""
    return (1, -1) if rng.random() < both else (_one_side(rng),)


def _side_word(*sides: int) -> str:
    return "bilateral" if len(sides) == 2 else "right" if sides[0] > 0 else "left"


def degree(severity: float) -> str:
    """Mild, moderate or severe."""
    return "mild" if severity < 0.38 else "moderate" if severity < 0.72 else "severe"


def submucosal_edema(body: Body, severity: float, rng: Generator) -> Details:
    """A stretch of colon with a swollen, dark submucosa; its wall is 1 to 2 cm thick."""
    parts = {"ascending": (0, 13), "transverse": (12, 27), "descending": (24, 39)}
    name, part = list(parts.items())[rng.integers(3)]
    body.colon_edema, body.colon_edema_part = _between(6, 15, severity), part
    # Mucosa and serosa are drawn 3 and 2 mm thick.
    return {"place": f"{name} colon", "size_mm": body.colon_edema + 5}


def renal_hypodensities(body: Body, severity: float, rng: Generator) -> Details:
    """Many dark spots below 1 cm in both kidneys: a scanner blurs them, they can't be characterised."""
    widest, count = (0.0, body.kidney_centre(1)), 0
    for side in (1, -1):
        draw = partial(in_kidney, body, side, rng)
        spots = apart(draw, int(_between(7, 20, severity)), gap_mm=10.0)
        count += len(spots)
        for centre in spots:
            radius = rng.uniform(3.6, 4.4)
            name = LABEL[f"kidney_{_side_word(side)}"]
            body.over.sphere(centre, radius, 10, only=name)
            widest = max(widest, (radius, centre), key=lambda spot: spot[0])
    size = body.size_mm(widest[1], (widest[0],) * 3)
    return {"side": "bilateral", "count": count, "size_mm": size}


def aortic_valve_calcification(body: Body, severity: float, rng: Generator) -> Details:
    """Calcium at the root of the aorta, in the middle of the heart."""
    root = body.heart_centre() + (7, -8, 2)
    for _ in range(int(_between(2, 7, severity))):
        spot = root + rng.normal(0, 5, 3)
        body.over.sphere(spot, _between(3.4, 6.2, severity), rng.uniform(*CALCIUM_HU), **PLAQUE)
    return {}


def coronary_calcification(body: Body, severity: float, rng: Generator) -> Details:
    """Calcium along the grooves on the surface of the heart."""
    centre, size = body.heart_centre(), np.array([54.0, 44.0, 44.0]) * body.heart_scale
    for _ in range(int(_between(3, 11, severity))):
        angle, height = rng.uniform(0.2, 2.6), rng.uniform(-0.75, 0.35)
        flat = np.sqrt(1 - height**2)
        start = centre + size * (flat * np.cos(angle), flat * np.sin(angle), height)
        end = start + rng.normal(0, 1, 3) * (9, 5, 9)
        hu = rng.uniform(*CALCIUM_HU)
        body.over.tube([start, end], _between(2.8, 4.8, severity), hu, **PLAQUE)
    return {}


def thrombosis(body: Body, severity: float, rng: Generator) -> Details:
    """A clot that widens and darkens the portal vein or the vena cava."""
    dark = 34 if body.phase != "non-contrast" else 62
    if rng.random() < 0.6:
        path, radius, place = body.portal_vein_path(), 8.5, "main portal vein"
        path = np.concatenate([path, body.place([(96, 14, 66)])])
    else:
        z = np.array([70.0, 20.0, -55.0])
        z = z * body.height
        path = np.stack([np.array([22.0, 19, 15]), body.spine_front(z) + 14, z], 1)
        radius, place = 11.5, "infrarenal inferior vena cava"
    label = LABEL["inferior_vena_cava"] if "cava" in place else 0
    body.over.tube(path, radius * _between(1.3, 1.95, severity), dark + 40, label=label)
    body.over.tube(path, radius * _between(1.05, 1.75, severity), dark, texture=4, label=label)
    return {"place": place}


def metastatic_disease(body: Body, severity: float, rng: Generator) -> Details:
    """Dark nodules throughout the liver; sometimes dense spots in the spine too."""
    liver = body.hu("liver") + body.liver_change_hu
    spots = apart(partial(in_liver, body, rng), int(_between(4, 16, severity)), gap_mm=31.0)
    radii = [_between(8, 24, rng.random() * (0.3 + 0.7 * severity)) for _ in spots]
    for nodule, size in zip(spots, radii, strict=True):
        body.over.sphere(nodule, size + 2.5, liver + 14, only=LABEL["liver"])
        body.over.sphere(nodule, size, liver - rng.uniform(70, 105), only=LABEL["liver"], texture=8)
    if rng.random() < 0.4:
        for level in rng.choice(np.arange(5, 12), 2, replace=False):
            centre = (rng.normal(0, 8), body.spine_front(0) - 17, (35 * level - 246) * body.height)
            body.over.sphere(centre, 10, 620, only=LABEL["vertebrae"])
    largest = int(np.argmax(radii))
    size = body.size_mm(spots[largest], (radii[largest],) * 3)
    return {"count": len(spots), "size_mm": size}


def pancreatic_atrophy(body: Body, severity: float, rng: Generator) -> Details:
    """A thin gland with fat between its lobules."""
    body.pancreas_scale *= _between(0.78, 0.5, severity)
    body.pancreas_fat = _between(0.3, 0.75, severity)
    return {}


def renal_cyst(body: Body, severity: float, rng: Generator) -> Details:
    """A round pocket of water at the rim of a kidney."""
    side = _one_side(rng)
    radius = _between(11, 38, severity)
    direction = rng.normal(size=3) * (1, 0.7, 1)
    direction /= np.linalg.norm(direction)
    centre = body.kidney_centre(side) + direction * np.array([29, 26, 50]) * 0.85
    body.over.sphere(centre, radius, 8, regions=torso.INSIDE_ABDOMEN | 1 << torso.WALL)
    poles = ("lower pole", "interpolar region", "upper pole")
    pole = poles[1 + int(direction[2] > 0.35) - int(direction[2] < -0.35)]
    size = body.size_mm(centre, (radius,) * 3)
    return {"side": _side_word(side), "size_mm": size, "place": pole}


def osteopenia(body: Body, severity: float, rng: Generator) -> Details:
    """Vertebrae that have lost half or more of their trabecular density."""
    body.trabecular_hu = min(body.trabecular_hu, _between(112, 45, severity))
    body.cortical_hu *= _between(1.0, 0.78, severity)
    return {}


def surgically_absent_gallbladder(body: Body, severity: float, rng: Generator) -> Details:
    """No gallbladder; clips in its bed."""
    body.has_gallbladder = False
    for _ in range(int(_between(2, 5, severity))):
        clip = body.place((48, 34, 22)) + rng.normal(0, 5, 3)
        body.over.tube([clip, clip + rng.normal(0, 3.5, 3)], 1.8, 2200, label=render.KEEP_LABEL)
    return {}


def atelectasis(body: Body, severity: float, rng: Generator) -> Details:
    """Collapsed lung at the base."""
    sides = _sides(rng, both=0.5)
    for side in sides:
        setattr(body, f"atelectasis_{_side_word(side)}", _between(16, 44, severity))
    return {"side": _side_word(*sides)}


def abdominal_aortic_aneurysm(body: Body, severity: float, rng: Generator) -> Details:
    """The infrarenal aorta beyond its limit of 3 cm, with clot and calcium in its wall."""
    radius = _between(16.5, 35, severity)
    path = body.aorta_path()
    centre = 0.5 * (path[3] + path[4]) + (-3, radius - body.aorta_radius, -4)
    half = np.array([radius, radius, 44.0])
    free = torso.INSIDE_ABDOMEN
    body.over.ellipsoid(centre, half, 58, label=LABEL["aorta"], regions=free, texture=4)
    lumen = half * (0.62, 0.62, 0.85)
    body.over.ellipsoid(
        centre + (2, -0.15 * radius, 0), lumen, body.hu("aorta"), only=LABEL["aorta"], regions=free
    )
    for angle in rng.uniform(0, 2 * np.pi, 5):
        rim = centre + (radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-22, 22))
        body.over.sphere(rim, 3.2, rng.uniform(*CALCIUM_HU), label=render.KEEP_LABEL)
    return {}


def anasarca(body: Body, severity: float, rng: Generator) -> Details:
    """Water in the fat under the skin."""
    body.fat_stranding = _between(0.08, 0.8, severity)
    body.visceral_hu += _between(3, 22, severity)
    return {}


def hiatal_hernia(body: Body, severity: float, rng: Generator) -> Details:
    """Stomach between heart and spine, above the diaphragm, with gas or fluid in it."""
    body.hernia_radius = _between(12, 30, severity)
    has_gas, level = rng.random() < 0.7, rng.uniform(-0.3, 0.3)
    body.hernia_gas = level if has_gas else -1.0
    return {"size_mm": body.size_mm(body.hernia_centre(), (body.hernia_radius,) * 3)}


def lymphadenopathy(body: Body, severity: float, rng: Generator) -> Details:
    """Nodes around the great vessels, the largest 1.5 cm or more across its short axis."""
    count = int(_between(8, 22, severity))
    flesh = body.hu("muscle") + 16
    for _ in range(count - 1):
        z = rng.uniform(-75, 65)
        x = rng.choice((-1, 1)) * rng.uniform(8, 38)
        spot = (x, body.spine_front(z) + rng.uniform(6, 40), z)
        radius = _between(7, 17, 0.35 * rng.random() + 0.65 * severity)
        half, turn = (radius, radius * 0.85, radius * 1.3), (rng.uniform(-40, 40), 0, 0)
        body.over.ellipsoid(spot, half, flesh, turn_deg=turn, only=0, texture=5)
    # The one that is measured lies whole, left of the aorta and below the kidney's vessels.
    short, z = _between(8, 19, severity), rng.uniform(-45, -20) * body.height
    beside = (-8 - body.aorta_radius - short, body.spine_front(z) + max(short, 10) + 2, z)
    body.over.ellipsoid(beside, (short, short, 1.4 * short), flesh, texture=5)
    return {"count": count, "size_mm": body.calibre_mm(beside, short)}


def prostatomegaly(body: Body, severity: float, rng: Generator) -> Details:
    """A prostate beyond its limit, which bulges into the bladder's floor."""
    body.prostate_scale = _between(1.2, 1.9, severity)
    return {}


def biliary_ductal_dilation(body: Body, severity: float, rng: Generator) -> Details:
    """Dark branches beside the portal veins, and a wide common duct."""
    radius = _between(4.0, 8.0, severity)
    hilum = body.place((46, 16, 56))
    for end in ((100, 22, 74), (78, -10, 96), (86, 42, 52), (54, 40, 96), (0, 44, 92)):
        branch = [hilum, body.place(end)]
        body.over.tube(branch, (radius + 1, 0.65 * radius), 7, only=LABEL["liver"])
    duct = body.place([(46, 16, 56), (38, 18, 34), (34, 20, 6)])
    body.over.tube(duct, 1.35 * radius, 8)
    return {"size_mm": body.calibre_mm(duct[1], 1.35 * radius)}


def cardiomegaly(body: Body, severity: float, rng: Generator) -> Details:
    """A heart wider than half of the chest."""
    body.heart_scale = _between(1.2, 1.5, severity) * body.inner_width / 132
    return {}


def splenomegaly(body: Body, severity: float, rng: Generator) -> Details:
    """A spleen longer than its limit of 13 cm."""
    body.spleen_scale = _between(1.32, 1.9, severity)
    return {}


def hepatomegaly(body: Body, severity: float, rng: Generator) -> Details:
    """A liver beyond its limit, which reaches below the kidney."""
    body.liver_scale = _between(1.2, 1.52, severity)
    return {}


def atherosclerosis(body: Body, severity: float, rng: Generator) -> Details:
    """Calcium in the wall of the aorta and the iliac arteries."""
    path = body.aorta_path()
    for _ in range(int(_between(9, 40, severity))):
        along = rng.uniform(1, len(path) - 1.01)
        k, t = int(along), along % 1
        angle = rng.uniform(0, 2 * np.pi)
        wall = body.aorta_radius * np.array([np.cos(angle), np.sin(angle), 0])
        spot = path[k] * (1 - t) + path[k + 1] * t + wall
        body.over.sphere(spot, _between(2.0, 3.6, severity), rng.uniform(*CALCIUM_HU), **PLAQUE)
    for side in (1, -1):
        x, y, z = side * rng.uniform(18, 40), rng.uniform(-18, 0), rng.uniform(-125, -75)
        body.over.sphere(body.place((x, y, z)), _between(2.0, 4.2, severity), 700)
    return {}


def ascites(body: Body, severity: float, rng: Generator) -> Details:
    """Free fluid around the liver, along the flanks and in the pelvis."""
    body.ascites = _between(3, 20, severity)
    return {}


def pleural_effusion(body: Body, severity: float, rng: Generator) -> Details:
    """Fluid behind the lung bases."""
    sides = _sides(rng, both=0.4)
    for side in sides:
        setattr(body, f"effusion_{_side_word(side)}", _between(18, 62, severity))
    return {"side": _side_word(*sides)}


def hepatic_steatosis(body: Body, severity: float, rng: Generator) -> Details:
    """A liver darker than the spleen."""
    body.liver_change_hu -= _between(14, 70, severity)
    return {}


def appendicitis(body: Body, severity: float, rng: Generator) -> Details:
    """An appendix thicker than its limit of 6 mm, with water in it, in stranded fat."""
    path = body.appendix_path()
    swelling = _between(26, 44, severity)
    body.over.sphere(path[1], swelling, -22, only=0, texture=40)
    body.appendix_radius = _between(4.0, 7.8, severity)
    for radius, hu in (
        (body.appendix_radius, body.hu("bowel_wall") + 30),
        (body.appendix_radius - 2.0, 14),
    ):
        body.over.tube(path, radius, hu)
    if rng.random() < 0.35:
        body.over.sphere(0.5 * (path[0] + path[1]), 3.2, 420)
    return {"size_mm": body.calibre_mm(path[1], body.appendix_radius)}


def gallstones(body: Body, severity: float, rng: Generator) -> Details:
    """Dense stones that lie on the floor of the gallbladder."""
    size = _between(4, 9, severity)
    draw = partial(on_gallbladder_floor, body, size, rng)
    spots = apart(draw, int(_between(1, 7, rng.random())), gap_mm=2.3 * size)
    for stone in spots:
        body.over.sphere(stone, size, rng.uniform(260, 700), only=LABEL["gallbladder"])
    largest = max(body.size_mm(stone, (size,) * 3) for stone in spots)
    return {"count": len(spots), "size_mm": largest}


def hydronephrosis(body: Body, severity: float, rng: Generator) -> Details:
    """A renal pelvis and ureter wide with urine."""
    sides = _sides(rng, both=0.2)
    for side in sides:
        hilum = body.kidney_centre(side) + (-side * 9, 4, 0)
        half = (_between(10, 25, severity), _between(9, 23, severity), _between(20, 44, severity))
        body.over.ellipsoid(hilum, half, 7, turn_deg=(-10, side * 12, side * -20))
        below = body.place([(side * 42, -8, -60), (side * 34, 0, -150)])
        ureter = [hilum + (-side * 6, 2, -14), *below]
        body.over.tube(ureter, _between(4, 7.5, severity), 7)
    return {"side": _side_word(*sides), "grade": degree(severity)}


def bowel_obstruction(body: Body, severity: float, rng: Generator) -> Details:
    """Small bowel wider than 2.5 cm, with gas-fluid levels; the colon is empty."""
    body.loop_radius = _between(14, 22, severity)
    body.loop_gas = 0.9
    body.colon_scale *= 0.72
    body.colon_gas = 0.15
    return {"size_mm": 2 * body.loop_radius * float(body.loop_spread.max())}


def free_air(body: Body, severity: float, rng: Generator) -> Details:
    """Gas under the front wall, outside the bowel."""
    body.free_air = _between(3, 24, severity)
    return {}


def fracture(body: Body, severity: float, rng: Generator) -> Details:
    """One to three vertebrae that lost height in front; the worst is the one that is named.

    Graded by the loss (Genant et al., J Bone Miner Res 1993): mild from 20 %, moderate from 25 %,
    severe above 40 %.
    """
    count = 1 + (rng.random() < 0.35) + (rng.random() < 0.15)
    worst, *others = rng.choice(np.arange(6, 13), count, replace=False)
    loss = _between(0.2, 0.7, severity**1.5)
    body.height_loss[worst] = loss
    for level in others:
        body.height_loss[level] = _between(0.2, loss, rng.random())
    grade = "mild" if loss < 0.25 else "moderate" if loss <= 0.4 else "severe"
    return {"place": LEVELS[worst], "count": count, "percent": 100 * loss, "grade": grade}


@dataclass(frozen=True)
class Found:
    """A finding that is present: how gross (0 to 1), and what a radiologist would dictate of it."""

    severity: float
    details: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """How often a finding occurs, with what, and how it is made."""

    apply: Callable[[Body, float, Generator], Details]
    prevalence: float
    age: float = 0.0  # loading of age on the liability, in [-1, 1]
    factors: tuple[tuple[str, float], ...] = ()  # loadings of the shared factors

    @property
    def name(self) -> str:
        """The CSV name of the data release."""
        return self.apply.__name__

    @property
    def only_sex(self) -> str:
        """The one sex that can have it, or empty."""
        return ONLY_SEX[self.name]


# Shared factors of risk, each standard normal over patients.
FACTORS = ("vascular", "metabolic", "cancer", "fluid", "biliary", "gut")

FINDINGS = {
    f.name: f
    for f in (
        Finding(submucosal_edema, 0.16, 0.0, (("gut", 0.5), ("fluid", 0.2))),
        Finding(renal_hypodensities, 0.22, 0.3),
        Finding(aortic_valve_calcification, 0.16, 0.5, (("vascular", 0.5),)),
        Finding(coronary_calcification, 0.24, 0.5, (("vascular", 0.55),)),
        Finding(thrombosis, 0.14, 0.1, (("cancer", 0.5),)),
        Finding(metastatic_disease, 0.18, 0.2, (("cancer", 0.7),)),
        Finding(pancreatic_atrophy, 0.18, 0.6),
        Finding(renal_cyst, 0.28, 0.45),
        Finding(osteopenia, 0.22, 0.6),
        Finding(surgically_absent_gallbladder, 0.20, 0.2, (("biliary", 0.4),)),
        Finding(atelectasis, 0.30, 0.2, (("fluid", 0.4),)),
        Finding(abdominal_aortic_aneurysm, 0.13, 0.4, (("vascular", 0.5),)),
        Finding(anasarca, 0.15, 0.0, (("fluid", 0.75),)),
        Finding(hiatal_hernia, 0.18, 0.35, (("gut", 0.3),)),
        Finding(lymphadenopathy, 0.20, 0.0, (("cancer", 0.6),)),
        Finding(prostatomegaly, 0.36, 0.6),
        Finding(biliary_ductal_dilation, 0.18, 0.2, (("biliary", 0.6),)),
        Finding(cardiomegaly, 0.22, 0.3, (("fluid", 0.45), ("vascular", 0.25))),
        Finding(splenomegaly, 0.18, 0.0, (("cancer", 0.2), ("fluid", 0.3))),
        Finding(hepatomegaly, 0.20, 0.0, (("metabolic", 0.5), ("cancer", 0.2))),
        Finding(atherosclerosis, 0.36, 0.65, (("vascular", 0.5),)),
        Finding(ascites, 0.20, 0.1, (("fluid", 0.65), ("cancer", 0.2))),
        Finding(pleural_effusion, 0.22, 0.15, (("fluid", 0.65),)),
        Finding(hepatic_steatosis, 0.26, 0.0, (("metabolic", 0.7),)),
        Finding(appendicitis, 0.12, -0.4, (("gut", 0.3),)),
        Finding(gallstones, 0.22, 0.2, (("biliary", 0.6),)),  # of those with one
        Finding(hydronephrosis, 0.18, 0.1),
        Finding(bowel_obstruction, 0.15, 0.1, (("gut", 0.5),)),
        Finding(free_air, 0.12, 0.0, (("gut", 0.5),)),
        Finding(fracture, 0.18, 0.55),
    )
}
FINDINGS = {name: FINDINGS[name] for name in NAMES}  # a KeyError names a finding that nobody draws
