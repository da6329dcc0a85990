"""A patient's abdomen in numbers, and the shapes it is painted from.

`Body` holds what varies between patients and what findings change: sizes, densities, positions.
`scene` turns it into the torso and the list of shapes that `render` paints. Positions are written
for one reference patient (half width 132 mm, half depth 92 mm inside the abdominal wall; L1 about
z = +70, the pelvic floor about z = -215; x to the right, y anterior, z superior, mm) and stretched
to the body at hand by `Body.place`.

Densities are typical CT values: portal-venous liver about 110 HU, spleen 120, aorta 150; fat -100;
trabecular bone from 200 (young) to 80 (osteoporotic). Proportions are chosen for teaching, not
taken from any patient.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from merlin.phantom import render
from merlin.vocabulary import LABEL

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


class ShapeList:
    """Shapes in painting order; later ones cover earlier ones."""

    def __init__(self):
        self._rows = []

    def ellipsoid(self, centre, half_axes, hu, *, turn_deg=(0, 0, 0), **options):
        """Add an ellipsoid: centre and half axes in mm, turned about x, y and z in degrees."""
        centre, half_axes = np.asarray(centre, float), np.maximum(half_axes, 0.5)
        turn = _rotation(turn_deg)
        reach = np.sqrt(((turn.T * half_axes) ** 2).sum(1))
        self._add(
            False, centre, half_axes, (0, 0), turn, hu, centre - reach, centre + reach, options
        )

    def tube(self, points, radii, hu, **options):
        """Add a chain of tapered tubes through `points` (n, 3) with `radii` (n,) or one radius, mm."""
        points = np.asarray(points, float)
        radii = np.broadcast_to(np.asarray(radii, float), len(points))
        for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            reach = max(ra, rb)
            low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
            self._add(True, a, b, (ra, rb), np.eye(3), hu, low, high, options)

    def sphere(self, centre, radius, hu, **options):
        """Add a ball of `radius` mm."""
        self.ellipsoid(centre, (radius,) * 3, hu, **options)

    def _add(self, is_tube, start, end, radii, turn, hu, low, high, options):
        # What has no name of its own is background, as fat over a spleen is no spleen; a change
        # within one structure (`only`) and whatever asks for it leaves the label that is there.
        is_within = options.get("only", render.ANY_LABEL) != render.ANY_LABEL
        known = dict(
            label=render.KEEP_LABEL if is_within else 0,
            regions=render.INSIDE_ABDOMEN,
            only=render.ANY_LABEL,
            texture=0.0,
            y_range=(-1e9, 1e9),
        )
        known.update(options)
        margin = render.MAX_WARP_MM + 6.0
        self._rows.append(
            (is_tube, start, end, radii, turn, hu, low - margin, high + margin, known)
        )

    def extend(self, other):
        """Paint all of `other` after what is here."""
        self._rows.extend(other._rows)

    def packed(self):
        """The rows as the arrays that `render` reads."""
        rows = self._rows
        options = [row[8] for row in rows]
        return render.Shapes(
            is_tube=np.array([r[0] for r in rows], bool),
            start=np.array([r[1] for r in rows], float),
            end=np.array([r[2] for r in rows], float),
            radii=np.array([r[3] for r in rows], float),
            turn=np.array([r[4] for r in rows], float),
            hu=np.array([r[5] for r in rows], float),
            texture=np.array([o["texture"] for o in options], float),
            label=np.array([o["label"] for o in options], np.int64),
            regions=np.array([o["regions"] for o in options], np.int64),
            only=np.array([o["only"] for o in options], np.int64),
            y_range=np.array([o["y_range"] for o in options], float),
            low=np.array([r[6] for r in rows], float),
            high=np.array([r[7] for r in rows], float),
        )


def _rotation(turn_deg):
    cx, cy, cz = np.cos(np.deg2rad(turn_deg))
    sx, sy, sz = np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


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
    ascites: float = 0.0
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
    pancreas_scale: float = 1.0
    pancreas_fat: float = 0.0  # 0 firm to 1 mostly fat
    prostate_scale: float = 1.0
    bladder_scale: float = 1.0
    has_gallbladder: bool = True
    gallbladder_scale: float = 1.0
    aorta_radius: float = 9.5
    loop_radius: float = 10.5  # small bowel, mm
    loop_gas: float = 0.3  # share of loops that hold gas
    loop_wall: float = 2.2
    colon_scale: float = 1.0
    colon_wall: float = 2.5
    colon_edema: float = 0.0  # thickness of a swollen submucosa, mm
    colon_edema_part: tuple[int, int] = (0, 0)  # points of the colon's course that are swollen
    colon_gas: float = 0.5
    height_loss: np.ndarray = field(default_factory=lambda: np.zeros(len(LEVELS)))
    incidental: set[str] = field(default_factory=set)  # spots that mean nothing, by name
    over: ShapeList = field(default_factory=ShapeList)  # painted after the organs

    def hu(self, tissue):
        """HU of a tissue in this study's contrast phase."""
        plain, now = ENHANCEMENT[tissue][2], ENHANCEMENT[tissue][PHASES.index(self.phase)]
        return plain + self.uptake * (now - plain)

    def place(self, points):
        """Reference coordinates (..., 3) → this body, mm."""
        stretch = np.array([self.inner_width / 132, self.inner_depth / 92, self.height])
        return np.asarray(points, float) * stretch

    @property
    def width(self):
        """Half width at the waist, skin included, mm."""
        return self.inner_width + self.muscle + 0.8 * self.fat + 2

    @property
    def depth(self):
        """Half depth, skin included, mm."""
        return self.inner_depth + self.muscle + 0.9 * self.fat + 2

    def spine_front(self, z):
        """y of the front of the vertebral bodies at height z, mm."""
        return -0.40 * self.depth - 6.0 * np.cos((z / self.height + 20.0) / 75.0) + 17.0

    def aorta_path(self):
        """(n, 3) centre line of the aorta from the chest to the bifurcation at L4, mm."""
        z = np.array([230.0, 120.0, 60.0, 20.0, -20.0, -48.0]) * self.height
        x = np.array([-20.0, -14.0, -9.0, -7.0, -6.0, -4.0])
        return np.stack([x, self.spine_front(z) + self.aorta_radius + 3.0, z], axis=1)

    def kidney_centre(self, side):
        """Centre of the right (side = 1) or left (-1) kidney, mm."""
        return self.place((side * 62, -36, 2 if side > 0 else 12))

    def gallbladder_centre(self):
        """Centre of the gallbladder, mm."""
        return self.place((54, 46, 10))

    def prostate_centre(self):
        """Centre of the prostate, mm."""
        return self.place((0, 8, -208))

    def heart_centre(self):
        """Centre of the heart, mm."""
        return self.place((-20, 26, 168))

    def portal_vein_path(self):
        """(3, 3) centre line of the portal vein from the pancreas to the hilum, mm."""
        return self.place([(16, 16, 16), (34, 12, 44), (48, 10, 60)])

    def torso(self):
        """The torso that `render` paints."""
        return render.Torso(
            width=self.width,
            depth=self.depth,
            height=self.height,
            fat=self.fat,
            muscle=self.muscle,
            fat_hu=self.fat_hu,
            visceral_hu=self.visceral_hu,
            muscle_hu=self.hu("muscle"),
            fat_stranding=self.fat_stranding,
            trabecular_hu=self.trabecular_hu,
            cortical_hu=self.cortical_hu,
            lung_hu=self.lung_hu,
            dome_right=self.dome_right,
            dome_left=self.dome_left,
            mediastinum=38.0 + 16.0 * (self.heart_scale - 1.0),
            ascites=self.ascites,
            free_air=self.free_air,
            effusion_right=self.effusion_right,
            effusion_left=self.effusion_left,
            atelectasis_right=self.atelectasis_right,
            atelectasis_left=self.atelectasis_left,
            fluid_hu=8.0,
            table_y=-self.depth - 16.0,
            arms=self.arms,
        )


def scene(body, rng):
    """Torso, shapes and vertebral height loss of a body, ready for `render.render`.

    `rng` draws what has no name: the course of the bowel, the place of gas. It must be seeded from
    the study alone, so that a finding changes only what it changes.
    """
    shapes = ShapeList()
    _bones(shapes, body)
    _mesentery(shapes, body, rng)
    _small_bowel(shapes, body, rng)
    _colon(shapes, body, rng)
    _upper_gut(shapes, body)
    _solid_organs(shapes, body)
    _vessels(shapes, body)
    _pelvis(shapes, body)
    _heart(shapes, body)
    shapes.extend(body.over)
    return body.torso(), shapes.packed(), body.height_loss


def _bones(shapes, body):
    bone, marrow = body.cortical_hu, 0.55 * body.trabecular_hu + 20
    deep = render.ANYWHERE & ~(1 << render.OUTSIDE) & ~(1 << render.SKIN)
    for side in (1, -1):
        for grow, hu in ((0.0, bone), (-3.5, marrow)):
            half = np.array([11.0, 52.0, 62.0]) + grow
            shapes.ellipsoid(
                body.place((side * 92, -24, -112)),
                half,
                hu,
                turn_deg=(12, side * 14, side * 38),
                regions=deep,
            )
            shapes.sphere(body.place((side * 88, 2, -208)), 25.0 + grow, hu, regions=deep)
            shapes.tube(
                body.place([(side * 100, -2, -212), (side * 118, -8, -250)]),
                17.0 + grow,
                hu,
                regions=deep,
            )
            shapes.tube(
                body.place([(side * 70, 12, -205), (side * 8, 55, -222)]),
                9.0 + grow,
                hu,
                regions=deep,
            )
        for x, y, r in ((34, -84, 25), (62, -80, 17)):  # erector spinae
            shapes.tube(
                [
                    (side * x, y * body.depth / 125, 240),
                    (side * x * 0.9, y * body.depth / 125, -110),
                ],
                r,
                body.hu("muscle"),
                texture=10,
                regions=deep
                & ~(1 << render.SPINE)
                & ~(1 << render.THORAX)
                & ~(1 << render.SUBCUTANEOUS),
            )
        front = [(side * 36, body.spine_front(z) - 12, z * body.height) for z in (60, 10, -40, -85)]
        shapes.tube(
            [*front, body.place((side * 72, 4, -150)), body.place((side * 88, 20, -215))],
            (8, 15, 20, 22, 20, 15),
            body.hu("muscle"),
            texture=6,
            regions=deep & ~(1 << render.SPINE) & ~(1 << render.FILLED),
        )
        shapes.ellipsoid(
            body.place((side * 70, -78, -175)),
            (52, 30, 62),
            body.hu("muscle"),
            texture=14,
            regions=deep,
        )
    for grow, hu in ((0.0, bone), (-4.0, marrow)):
        shapes.ellipsoid(
            (0, body.spine_front(-95) - 26, -122 * body.height),
            np.array([46.0, 17.0, 46.0]) + grow,
            hu,
            turn_deg=(-18, 0, 0),
            regions=deep,
        )


def _small_bowel(shapes, body, rng):
    """Loops that wander through the middle of the abdomen, with wall, contents and some gas."""
    label = LABEL["small_bowel"]
    box_low, box_high = np.array([-84.0, -12.0, -160.0]), np.array([84.0, 70.0, 4.0])
    for _ in range(9):
        point = rng.uniform(box_low, box_high)
        heading = rng.normal(size=3)
        points = [point]
        for _ in range(9):
            heading = 0.55 * heading / np.linalg.norm(heading) + rng.normal(size=3) * (
                0.7,
                0.5,
                0.6,
            )
            point = point + 24.0 * heading / np.linalg.norm(heading)
            heading = np.where((point < box_low) | (point > box_high), -heading, heading)
            point = point.clip(box_low, box_high)
            points.append(point)
        points = body.place(points)
        radius = body.loop_radius * rng.uniform(0.85, 1.15)
        wall = min(body.loop_wall, 0.7 * radius)
        # Every draw is made whether used or not: a finding must not shift the ones after it.
        gassy, a = rng.random() < body.loop_gas, rng.integers(0, 6)
        shapes.tube(points, radius, body.hu("bowel_wall"), label=label, texture=8)
        shapes.tube(points, radius - wall, rng.uniform(12, 45), label=label, texture=14)
        if gassy:
            level = points[a : a + 4, 1].mean() + 0.15 * radius
            shapes.tube(points[a : a + 4], radius - wall, -960, label=label, y_range=(level, 1e9))


def _mesentery(shapes, body, rng):
    """Branches of the mesenteric vessels: thin strands that fan out towards the loops."""
    root = body.place((4, 24, -4))
    for _ in range(16):
        tip = body.place(rng.uniform((-75, 5, -130), (75, 62, -10)))
        middle = 0.5 * (root + tip) + rng.normal(0, 8, 3)
        shapes.tube([root, middle, tip], (2.6, 2.0, 1.4), body.hu("portal_vein") - 20)


def _colon(shapes, body, rng):
    """The frame: caecum, ascending, transverse, descending, sigmoid, rectum; stool and gas."""
    label = LABEL["colon"]
    course = np.array(
        [
            (84, 18, -122), (96, 2, -88), (100, -10, -45), (98, -8, -2), (78, 30, -2), (40, 62, -24),
            (0, 66, -34), (-42, 60, -12), (-86, 22, 40), (-104, -12, 18), (-108, -16, -30),
            (-104, -8, -85), (-84, 8, -125), (-48, 12, -150), (-22, -14, -142), (-4, -38, -160),
            (0, -46, -185), (0, -42, -225),
        ],
        float,
    )  # fmt: skip
    course[5:8] += rng.normal(0, 9, (3, 3))
    course[12:15] += rng.normal(0, 7, (3, 3))
    dense = np.concatenate([np.linspace(a, b, 3, endpoint=False) for a, b in pairwise(course)])
    points = body.place(dense)
    calibre = np.interp(np.arange(len(dense)), [0, 6, 20, 34, 51], [25, 23, 20, 16, 17])
    calibre = calibre * body.colon_scale * (1 + 0.12 * np.cos(2.1 * np.arange(len(dense))))
    shapes.tube(points, calibre, body.hu("bowel_wall"), label=label, texture=8)
    lumen = calibre - body.colon_wall
    shapes.tube(points, lumen, rng.uniform(10, 50), label=label, texture=85)
    if body.colon_edema > 0:  # bright mucosa and serosa with a dark submucosa between: a target
        swollen = slice(*body.colon_edema_part)
        calibre[swollen] += 0.35 * body.colon_edema
        layers = (
            (2.0, body.hu("bowel_wall")),
            (0.0, 16.0),
            (-body.colon_edema, body.hu("bowel_wall") + 25),
        )
        for grow, hu in (*layers, (-body.colon_edema - 3.0, 22.0)):
            shapes.tube(points[swollen], np.maximum(calibre[swollen] + grow, 2.0), hu, label=label)
        lumen[swollen] = np.maximum(lumen[swollen] - body.colon_edema, 2.0)
    for start in range(0, len(points) - 4, 5):
        if rng.random() < body.colon_gas:
            part = slice(start, start + 6)
            level = points[part, 1].mean() - 0.2 * calibre[part].mean()
            shapes.tube(points[part], lumen[part], -970, label=label, y_range=(level, 1e9))


def _upper_gut(shapes, body):
    wall, label = body.hu("bowel_wall"), LABEL["stomach"]
    path = body.place([(-62, -8, 96), (-64, 22, 62), (-46, 46, 30), (-12, 54, 12), (16, 44, 16)])
    radii = np.array([33.0, 30.0, 25.0, 18.0, 12.0])
    shapes.tube(path, radii, wall, label=label)
    shapes.tube(path, radii - 5, 28, label=label, texture=16)
    shapes.tube(path[:3], radii[:3] - 5, -970, label=label, y_range=(path[1, 1] + 6, 1e9))
    loop = body.place(
        [(22, 40, 18), (44, 22, 12), (50, 6, -14), (34, 0, -36), (4, 8, -38), (-18, 20, -26)]
    )
    shapes.tube(loop, 12.5, wall, label=LABEL["duodenum"])
    shapes.tube(loop, 9.0, 26, label=LABEL["duodenum"], texture=14)
    gullet = [(-6, body.spine_front(z) + 26, z) for z in (240, 150, 118)]
    shapes.tube([*gullet, body.place((-48, 0, 96))], 8.5, wall - 15, regions=render.ANYWHERE)


def _solid_organs(shapes, body):
    inside = render.INSIDE_ABDOMEN
    firm, fat = body.hu("pancreas"), body.visceral_hu
    pancreas = firm + (fat - firm) * body.pancreas_fat
    path = body.place(
        [(34, 22, -4), (28, 28, 12), (6, 36, 22), (-26, 28, 30), (-56, 8, 40), (-80, -10, 48)]
    )
    radii = np.array([13.5, 14.5, 10.5, 11.5, 11.5, 10.0]) * body.pancreas_scale
    shapes.tube(path, radii, pancreas, label=LABEL["pancreas"], texture=12 + 45 * body.pancreas_fat)

    spleen = body.place((-94, -30, 62))
    shapes.ellipsoid(
        spleen,
        np.array([25.0, 42.0, 50.0]) * body.spleen_scale,
        body.hu("spleen"),
        turn_deg=(14, -12, -28),
        label=LABEL["spleen"],
        texture=5,
    )

    liver, label = body.hu("liver") + body.liver_change_hu, LABEL["liver"]
    grow = body.liver_scale
    # Growth goes down and to the left: the dome and the ribs hold the rest.
    right = body.place((68, 4, 66)) - (4 * (grow - 1), 0, 34 * (grow - 1))
    shapes.ellipsoid(
        right,
        np.array([66.0, 78.0, 76.0]) * grow,
        liver,
        turn_deg=(0, -8, 0),
        label=label,
        texture=5,
    )
    left = body.place((4, 40, 84))
    shapes.ellipsoid(
        left,
        np.array([64.0, 36.0, 36.0]) * grow,
        liver,
        turn_deg=(0, 14, -8),
        label=label,
        texture=5,
    )
    shapes.ellipsoid(
        body.place((22, -12, 88)), (24, 20, 30), liver, label=label, texture=5
    )  # caudate
    if body.has_gallbladder:
        shapes.ellipsoid(
            body.gallbladder_centre(),
            np.array([14.0, 17.0, 27.0]) * body.gallbladder_scale,
            9,
            turn_deg=(28, 12, 0),
            label=LABEL["gallbladder"],
        )
    for side, name in ((1, "kidney_right"), (-1, "kidney_left")):
        centre = body.kidney_centre(side)
        size = np.array([29.0, 26.0, 55.0]) * body.kidney_scale
        turn = (-10, side * 12, side * -20)
        shapes.ellipsoid(centre, size + 7, body.visceral_hu, turn_deg=turn)  # perirenal fat
        shapes.ellipsoid(
            centre, size, body.hu("kidney"), turn_deg=turn, label=LABEL[name], texture=6
        )
        shapes.ellipsoid(
            centre, size - 9, body.hu("medulla"), turn_deg=turn, texture=12, only=LABEL[name]
        )
        hilum = centre + (-side * 11, 5, 0)
        shapes.ellipsoid(hilum, (11, 8, 24), -50, turn_deg=turn, texture=18)

    for side, name in ((1, "adrenal_gland_right"), (-1, "adrenal_gland_left")):
        apex = body.place((side * 37, -30, 76 if side > 0 else 70))
        for limb in (-9, 9):
            shapes.tube(
                [apex, apex + (side * 6 + limb * 0.3, -9 + 0.5 * limb, -20)],
                (5.0, 4.0),
                body.hu("gland"),
                label=LABEL[name],
                regions=inside,
            )


def _vessels(shapes, body):
    free = render.ANYWHERE & ~(1 << render.SPINE) & ~(1 << render.OUTSIDE)
    cava, label = body.hu("vena_cava"), LABEL["inferior_vena_cava"]
    z = np.array([128.0, 90.0, 40.0, -10.0, -62.0]) * body.height
    path = np.stack([np.array([22.0, 22, 20, 18, 15]), body.spine_front(z) + 14, z], 1)
    shapes.tube(path, (13, 12, 11.5, 11, 10), cava, label=label, regions=free)
    portal, live = body.hu("portal_vein") + 0.5 * body.liver_change_hu, dict(only=LABEL["liver"])
    main = body.portal_vein_path()
    shapes.tube(main, (7.5, 7.5, 7.0), portal)
    for end in ((96, 14, 66), (72, -18, 88), (84, 34, 44), (-6, 40, 84)):
        shapes.tube([main[-1], body.place(end)], (5.5, 3.0), portal, **live)
    for end in ((92, 2, 96), (54, 46, 92), (0, 30, 104)):
        shapes.tube([path[0] - (0, 0, 18), body.place(end)], (5.0, 3.0), portal - 12, **live)
    shapes.tube(body.place([(20, 26, 18), (-30, 20, 32), (-78, -16, 56)]), 4.5, portal)
    for side in (1, -1):
        kidney = body.kidney_centre(side) + (-side * 20, 6, 0)
        shapes.tube([kidney, (side * 8, body.spine_front(0) + 16, kidney[2])], 4.5, cava)
        iliac = body.place([(side * 30, -22, -100), (side * 58, 6, -150), (side * 68, 44, -222)])
        shapes.tube([path[-1], *(iliac - (0, 7, 0))], (9, 8, 7.5, 7), cava, regions=free)
    aorta = body.aorta_path()
    blood, label = body.hu("aorta"), LABEL["aorta"]
    radii = np.array([13.0, 12.0, 10.6, 9.8, 9.2, 8.5]) * body.aorta_radius / 9.5
    shapes.tube(aorta, radii, blood, label=label, regions=free)
    for side in (1, -1):
        iliac = body.place([(side * 28, -16, -95), (side * 54, 12, -148), (side * 66, 52, -222)])
        shapes.tube([aorta[-1], *iliac], (6.5, 6, 5.5, 5), blood, regions=free)
    front = aorta[2] + (0, body.aorta_radius, 0)
    shapes.tube([front, body.place((0, 24, 6)), body.place((4, 34, -60))], (4.5, 4, 3.5), blood)


def _pelvis(shapes, body):
    bladder = body.place((0, 26, -178))
    shapes.ellipsoid(
        bladder,
        np.array([37.0, 29.0, 26.0]) * body.bladder_scale,
        body.hu("muscle") - 15,
        label=LABEL["urinary_bladder"],
    )
    shapes.ellipsoid(
        bladder,
        np.array([37.0, 29.0, 26.0]) * body.bladder_scale - 3.5,
        6,
        label=LABEL["urinary_bladder"],
    )
    if body.sex == "M":
        shapes.ellipsoid(
            body.prostate_centre(),
            np.array([20.0, 15.0, 16.0]) * body.prostate_scale,
            body.hu("prostate"),
            label=LABEL["prostate"],
            texture=7,
        )
    else:
        shapes.ellipsoid(
            body.place((4, -8, -166)),
            (25, 22, 31),
            body.hu("prostate") + 12,
            turn_deg=(35, 0, 0),
            texture=7,
        )
        for side in (1, -1):
            shapes.ellipsoid(body.place((side * 40, -6, -158)), (13, 10, 14), 38, texture=10)


def _heart(shapes, body):
    chest = (1 << render.THORAX) | (1 << render.FILLED)
    centre, size = body.heart_centre(), np.array([56.0, 46.0, 46.0]) * body.heart_scale
    turn, label = (0, 24, -28), LABEL["heart"]
    shapes.ellipsoid(centre, size + 9, body.visceral_hu + 6, turn_deg=turn, regions=chest)
    shapes.ellipsoid(
        centre, size, body.hu("myocardium"), turn_deg=turn, regions=chest, label=label, texture=5
    )
    for shift, share in (((-16, 2, -4), 0.46), ((16, 12, -2), 0.44), ((10, -16, 16), 0.38)):
        shapes.ellipsoid(
            centre + shift, size * share, body.hu("blood"), turn_deg=turn, only=label, regions=chest
        )
