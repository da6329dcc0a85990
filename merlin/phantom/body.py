"""A patient's abdomen in numbers.

`Body` holds what varies between patients and what findings change: sizes, densities, positions.
Positions are written for one reference patient (half width 132 mm, half depth 92 mm inside the
abdominal wall; L1 about z = +70, the pelvic floor about z = -215; x to the right, y anterior, z
superior, mm) and stretched to the body at hand by `Body.place`.

Densities are typical CT values: portal-venous liver about 110 HU, spleen 120, aorta 150; fat -100;
trabecular bone from 200 (young) to 80 (osteoporotic). Proportions are chosen for teaching, not
taken from any patient.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from merlin.phantom.render import where_seen
from merlin.phantom.shapes import Coordinates, ShapeList
from merlin.phantom.torso import Torso

N_LOOPS = 9  # of small bowel
PHASES = ("portal venous", "arterial", "non-contrast")
# HU by phase, in the order of PHASES.
ENHANCEMENT = {
    "liver": (108, 72, 57),
    "spleen": (122, 118, 48),
    "kidney": (178, 150, 33),
    "medulla": (150, 88, 30),
    "pancreas": (98, 96, 42),
    "bowel_wall": (92, 80, 40),
    "gland": (84, 74, 32),
    "prostate": (78, 62, 40),
    "muscle": (62, 58, 53),
    "myocardium": (112, 104, 44),
    "blood": (148, 225, 42),
    "aorta": (152, 295, 43),
    "vena_cava": (138, 84, 41),
    "portal_vein": (168, 92, 42),
}

# Levels of the spine from below upwards, as `render` counts them (z = 35 n - 260 mm).
LEVELS = ("", "", "", "", "", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8", "T7")


@dataclass
class Body:
    """One abdomen on one day. Findings change these numbers before anything is painted."""

    sex: str  # "F" or "M"
    phase: str
    uptake: float = 1.0  # how well the contrast was timed and dosed
    inner_width: float = 132.0  # half width inside the wall, mm
    inner_depth: float = 92.0
    height: float = 1.0
    fat: float = 20.0
    muscle: float = 13.0
    fat_hu: float = -102.0
    visceral_hu: float = -98.0
    fat_stranding: float = 0.0
    trabecular_hu: float = 165.0
    cortical_hu: float = 480.0
    lung_hu: float = -845.0
    dome_right: float = 66.0
    dome_left: float = 56.0
    ascites: float = 0.0  # thickness of the fluid around the liver, mm
    free_air: float = 0.0
    effusion_right: float = 0.0
    effusion_left: float = 0.0
    atelectasis_right: float = 0.0
    atelectasis_left: float = 0.0
    arms: float = 0.0
    liver_scale: float = 1.0
    liver_change_hu: float = 0.0
    spleen_scale: float = 1.0
    kidney_scale: float = 1.0
    heart_scale: float = 1.0
    hernia_radius: float = 0.0  # of the stomach behind the heart, mm
    hernia_gas: float = -1.0  # its share from the top, as a height in radii; -1 none
    pancreas_scale: float = 1.0
    pancreas_fat: float = 0.0  # 0 firm to 1 mostly fat
    prostate_scale: float = 1.0
    bladder_scale: float = 1.0
    fluid_hu: float = 8.0  # of effusions and ascites
    has_gallbladder: bool = True
    gallbladder_scale: float = 1.0
    aorta_radius: float = 9.5
    loop_radius: float = 10.5  # small bowel, mm
    loop_gas: float = 0.3  # share of loops that hold gas
    loop_wall: float = 2.2
    loop_spread: np.ndarray = field(default_factory=lambda: np.ones(N_LOOPS))  # of their radii
    appendix_radius: float = 2.7
    appendix_tip: tuple[float, float, float] = (49.0, 30.0, -139.0)
    colon_scale: float = 1.0
    colon_wall: float = 2.5
    colon_edema: float = 0.0  # thickness of a swollen submucosa, mm
    colon_edema_part: tuple[int, int] = (0, 0)  # points of the colon's course that are swollen
    colon_gas: float = 0.5
    height_loss: np.ndarray = field(default_factory=lambda: np.zeros(len(LEVELS)))
    warp: np.ndarray = field(default_factory=lambda: np.zeros((3, 9, 7, 11)))  # of space, mm
    incidental: set[str] = field(default_factory=set)  # spots that mean nothing, by name
    over: ShapeList = field(default_factory=ShapeList)  # painted after the organs

    def size_mm(self, centre: Coordinates, half_axes: Coordinates) -> float:
        """Largest axial diameter of an ellipsoid, as the picture shows it, mm."""
        return float(self._diameters(centre, half_axes).max())

    def calibre_mm(self, point: Coordinates, radius: float) -> float:
        """Mean diameter of a tube at a point, as the picture shows it, mm."""
        return float(self._diameters(point, (radius,) * 3).mean())

    def _diameters(self, centre: Coordinates, half_axes: Coordinates) -> np.ndarray:
        angle = np.linspace(0, np.pi, 8, endpoint=False)
        ray = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) * np.asarray(half_axes)
        ends = where_seen(np.asarray(centre, float) + np.concatenate([ray, -ray]), self.warp)
        return np.linalg.norm(ends[: len(ray)] - ends[len(ray) :], axis=1)

    def hu(self, tissue: str) -> float:
        """HU of a tissue in this study's contrast phase."""
        plain, now = ENHANCEMENT[tissue][2], ENHANCEMENT[tissue][PHASES.index(self.phase)]
        return plain + self.uptake * (now - plain)

    def place(self, points: Coordinates) -> np.ndarray:
        """Reference coordinates (..., 3) → this body, mm."""
        stretch = np.array([self.inner_width / 132, self.inner_depth / 92, self.height])
        return np.asarray(points, float) * stretch

    @property
    def width(self) -> float:
        """Half width at the waist, skin included, mm."""
        return self.inner_width + self.muscle + 0.8 * self.fat + 2

    @property
    def depth(self) -> float:
        """Half depth, skin included, mm."""
        return self.inner_depth + self.muscle + 0.9 * self.fat + 2

    def spine_front(self, z: Any) -> Any:
        """y of the front of the vertebral bodies at height z (float or array), mm."""
        return -0.40 * self.depth - 6.0 * np.cos((z / self.height + 20.0) / 75.0) + 17.0

    def aorta_path(self) -> np.ndarray:
        """(n, 3) centre line of the aorta from the chest to the bifurcation at L4, mm."""
        z = np.array([230.0, 120.0, 60.0, 20.0, -20.0, -48.0]) * self.height
        x = np.array([-20.0, -14.0, -9.0, -7.0, -6.0, -4.0])
        return np.stack([x, self.spine_front(z) + self.aorta_radius + 3.0, z], axis=1)

    def kidney_centre(self, side: int) -> np.ndarray:
        """Centre of the right (side = 1) or left (-1) kidney, mm."""
        return self.place((side * 62, -36, 2 if side > 0 else 12))

    def gallbladder_centre(self) -> np.ndarray:
        """Centre of the gallbladder, mm."""
        return self.place((54, 46, 10))

    def prostate_centre(self) -> np.ndarray:
        """Centre of the prostate, mm."""
        return self.place((0, 8, -208))

    def heart_centre(self) -> np.ndarray:
        """Centre of the heart, mm; what grows behind it pushes it forwards."""
        return self.place((-20, 26, 168)) + (0, 0.55 * self.hernia_radius, 0)

    def hernia_centre(self) -> np.ndarray:
        """Centre of a hernia through the hiatus: above the diaphragm, before the aorta, mm."""
        z = 92 * self.height + 0.75 * self.hernia_radius
        y = self.spine_front(z) + 2 * self.aorta_radius + self.hernia_radius
        return np.array([-10.0, y, z])

    def appendix_path(self) -> np.ndarray:
        """(3, 3) centre line of the appendix from the caecum, mm."""
        root, tip = self.place((80, 24, -120)), self.place(self.appendix_tip)
        return np.stack([root, 0.5 * (root + tip) + (0, -4, 3), tip])

    def kidney_axes(self) -> np.ndarray:
        """Half axes of a kidney, mm."""
        return np.array([29.0, 26.0, 55.0]) * self.kidney_scale

    def portal_vein_path(self) -> np.ndarray:
        """(3, 3) centre line of the portal vein from the pancreas to the hilum, mm."""
        return self.place([(16, 16, 16), (34, 12, 44), (48, 10, 60)])

    def torso(self) -> Torso:
        """The torso that `render` paints: what it calls as the body does, and what follows."""
        same = {f: getattr(self, f) for f in Torso._fields if hasattr(self, f)}
        return Torso(
            **same,
            muscle_hu=self.hu("muscle"),
            mediastinum=38.0 + 16.0 * (self.heart_scale - 1.0),
            table_y=-self.depth - 16.0,
        )
