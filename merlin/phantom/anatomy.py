"""The organs of a body as shapes: bones, bowel, solid organs, vessels, pelvis, heart.

`scene` turns a `Body` into the torso and the list of shapes that `render` paints. Coordinates are
those of the reference patient; see `body`.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from merlin.phantom import render, torso
from merlin.phantom.body import Body
from merlin.phantom.shapes import ShapeList, in_ball, rotation
from merlin.vocabulary import LABEL

GALLBLADDER_TURN = (28, 12, 0)


def scene(body: Body, rng: np.random.Generator) -> tuple[torso.Torso, render.Shapes, np.ndarray]:
    """Torso, shapes and vertebral height loss of a body, ready for `render.render`.

    `rng` draws what has no name: the course of the bowel, the place of gas. It must be seeded from
    the study alone, so that a finding changes only what it changes.
    """
    shapes = ShapeList()
    _bones(shapes, body)
    _ascites(shapes, body)
    _mesentery(shapes, body, rng)
    _small_bowel(shapes, body, rng)
    _colon(shapes, body, rng)
    _upper_gut(shapes, body)
    _pancreas_and_spleen(shapes, body)
    _liver(shapes, body)
    _kidneys(shapes, body)
    _vessels(shapes, body)
    _pelvis(shapes, body)
    _heart(shapes, body)
    shapes.extend(body.over)
    return body.torso(), shapes.packed(), body.height_loss


def _bones(shapes: ShapeList, body: Body) -> None:
    bone, marrow = body.cortical_hu, 0.55 * body.trabecular_hu + 20
    deep = torso.ANYWHERE & ~(1 << torso.OUTSIDE) & ~(1 << torso.SKIN)
    for side in (1, -1):
        for grow, hu in ((0.0, bone), (-3.5, marrow)):
            ilium, half = body.place((side * 92, -24, -112)), np.array([11.0, 52.0, 62.0]) + grow
            turn = (12, side * 14, side * 38)
            shapes.ellipsoid(ilium, half, hu, turn_deg=turn, regions=deep)
            shapes.sphere(body.place((side * 88, 2, -208)), 25.0 + grow, hu, regions=deep)
            femur = body.place([(side * 100, -2, -212), (side * 118, -8, -250)])
            shapes.tube(femur, 17.0 + grow, hu, regions=deep)
            pubis = body.place([(side * 70, 12, -205), (side * 8, 55, -222)])
            shapes.tube(pubis, 9.0 + grow, hu, regions=deep)
        _muscles(shapes, body, side, deep)
    for grow, hu in ((0.0, bone), (-4.0, marrow)):
        sacrum = (0, body.spine_front(-95) - 26, -122 * body.height)
        half = np.array([46.0, 17.0, 46.0]) + grow
        shapes.ellipsoid(sacrum, half, hu, turn_deg=(-18, 0, 0), regions=deep)


def _muscles(shapes: ShapeList, body: Body, side: int, deep: int) -> None:
    """Of one side: erector spinae, psoas, glutei."""
    flesh, off_spine = body.hu("muscle"), deep & ~(1 << torso.SPINE)
    back = off_spine & ~(1 << torso.THORAX) & ~(1 << torso.SUBCUTANEOUS)
    for x, y, r in ((34, -84, 25), (62, -80, 17)):
        behind = y * body.depth / 125
        path = [(side * x, behind, 240), (side * x * 0.9, behind, -110)]
        shapes.tube(path, r, flesh, texture=10, regions=back)
    front = [(side * 36, body.spine_front(z) - 12, z * body.height) for z in (60, 10, -40, -85)]
    psoas = [*front, body.place((side * 72, 4, -150)), body.place((side * 88, 20, -215))]
    free = off_spine & ~(1 << torso.FILLED)
    shapes.tube(psoas, (8, 15, 20, 22, 20, 15), flesh, texture=6, regions=free)
    seat = body.place((side * 70, -78, -175))
    shapes.ellipsoid(seat, (52, 30, 62), flesh, texture=14, regions=deep)


def _ascites(shapes: ShapeList, body: Body) -> None:
    """Free fluid where it gathers in a patient on the back, painted first: organs float in it.

    Around the liver and the spleen, in the gutters beside the colon, in the pouch of Morison and in
    the pelvis; only gross ascites reaches up between the loops.
    """
    if body.ascites <= 0:
        return
    deep, fluid = body.ascites, body.fluid_hu
    for centre, half, turn, _ in [*liver_lobes(body)[:2], spleen(body)]:
        shapes.ellipsoid(centre, half + deep, fluid, turn_deg=turn)
    for side in (1, -1):
        gutter = body.place([(side * 112, -6, 40), (side * 114, -4, -40), (side * 104, 8, -125)])
        shapes.tube(gutter, 8 + 1.1 * deep, fluid)
    pelvis = np.array([42.0, 30.0, 14.0]) + deep * np.array([1.6, 1.4, 1.5])
    shapes.ellipsoid(body.place((0, -14, -158)), pelvis, fluid)
    if deep > 13:
        between = np.array([80.0, 26.0, 60.0]) + deep
        shapes.ellipsoid(body.place((0, 2, -92)), between, fluid)


def _small_bowel(shapes: ShapeList, body: Body, rng: np.random.Generator) -> None:
    """Loops that wander through the middle of the abdomen, with wall, contents and some gas."""
    label = LABEL["small_bowel"]
    box_low, box_high = np.array([-84.0, -12.0, -160.0]), np.array([84.0, 70.0, 4.0])
    for spread in body.loop_spread:
        point = rng.uniform(box_low, box_high)
        heading = rng.normal(size=3)
        course = [point]
        for _ in range(9):
            drift = rng.normal(size=3) * (0.7, 0.5, 0.6)
            heading = 0.55 * heading / np.linalg.norm(heading) + drift
            point = point + 24.0 * heading / np.linalg.norm(heading)
            heading = np.where((point < box_low) | (point > box_high), -heading, heading)
            point = point.clip(box_low, box_high)
            course.append(point)
        points = body.place(course)
        radius = body.loop_radius * spread
        wall = min(body.loop_wall, 0.7 * radius)
        # Every draw is made whether used or not: a finding must not shift the ones after it.
        gassy, a = rng.random() < body.loop_gas, rng.integers(0, 6)
        shapes.tube(points, radius, body.hu("bowel_wall"), label=label, texture=8)
        shapes.tube(points, radius - wall, rng.uniform(12, 45), label=label, texture=14)
        if gassy:
            level = points[a : a + 4, 1].mean() + 0.15 * radius
            shapes.tube(points[a : a + 4], radius - wall, -960, label=label, y_range=(level, 1e9))


def _mesentery(shapes: ShapeList, body: Body, rng: np.random.Generator) -> None:
    """Branches of the mesenteric vessels: thin strands that fan out towards the loops."""
    root = body.place((4, 24, -4))
    for _ in range(16):
        tip = body.place(rng.uniform((-75, 5, -130), (75, 62, -10)))
        middle = 0.5 * (root + tip) + rng.normal(0, 8, 3)
        shapes.tube([root, middle, tip], (2.6, 2.0, 1.4), body.hu("portal_vein") - 20)


def _colon(shapes: ShapeList, body: Body, rng: np.random.Generator) -> None:
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
        wall, thick = body.hu("bowel_wall"), body.colon_edema
        for grow, hu in ((2.0, wall), (0.0, 16.0), (-thick, wall + 25), (-thick - 3.0, 22.0)):
            shapes.tube(points[swollen], np.maximum(calibre[swollen] + grow, 2.0), hu, label=label)
        lumen[swollen] = np.maximum(lumen[swollen] - body.colon_edema, 2.0)
    appendix = body.appendix_path()
    shapes.tube(appendix, body.appendix_radius, body.hu("bowel_wall") + 20)
    shapes.tube(appendix, max(body.appendix_radius - 2.2, 0.6), 14)
    for start in range(0, len(points) - 4, 5):
        if rng.random() < body.colon_gas:
            part = slice(start, start + 6)
            level = points[part, 1].mean() - 0.2 * calibre[part].mean()
            shapes.tube(points[part], lumen[part], -970, label=label, y_range=(level, 1e9))


def _upper_gut(shapes: ShapeList, body: Body) -> None:
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
    shapes.tube([*gullet, body.place((-48, 0, 96))], 8.5, wall - 15, regions=torso.ANYWHERE)
    _hernia(shapes, body)


def _hernia(shapes: ShapeList, body: Body) -> None:
    """Stomach above the diaphragm; the heart and the aorta, painted later, keep their place."""
    radius, centre = body.hernia_radius, body.hernia_centre()
    if radius <= 0:
        return
    kind: dict[str, Any] = dict(label=LABEL["stomach"], regions=torso.INSIDE_THORAX)
    neck = [centre - (0, 0, 0.6 * radius), body.place((-40, 4, 92))]
    either = torso.INSIDE_THORAX | torso.INSIDE_ABDOMEN
    shapes.tube(
        neck, min(9.0, 0.6 * radius), body.hu("bowel_wall"), label=kind["label"], regions=either
    )
    shapes.sphere(centre, radius, body.hu("bowel_wall"), **kind)
    shapes.sphere(centre, radius - 4, 24, texture=15, **kind)
    if body.hernia_gas > -1:
        level = centre[1] - body.hernia_gas * radius
        shapes.sphere(centre, radius - 4, -950, y_range=(level, 1e9), **kind)


def spleen(body: Body) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], float]:
    """Centre, half axes, turn in degrees and HU of the spleen."""
    half = np.array([25.0, 42.0, 53.0]) * body.spleen_scale
    return body.place((-94, -30, 62)), half, (14, -12, -28), body.hu("spleen")


def _pancreas_and_spleen(shapes: ShapeList, body: Body) -> None:
    firm, fat = body.hu("pancreas"), body.visceral_hu
    pancreas = firm + (fat - firm) * body.pancreas_fat
    path = body.place(
        [(34, 22, -4), (28, 28, 12), (6, 36, 22), (-26, 28, 30), (-56, 8, 40), (-80, -10, 48)]
    )
    radii = np.array([13.5, 14.5, 10.5, 11.5, 11.5, 10.0]) * body.pancreas_scale
    shapes.tube(path, radii, pancreas, label=LABEL["pancreas"], texture=12 + 45 * body.pancreas_fat)
    centre, half, turn, hu = spleen(body)
    shapes.ellipsoid(centre, half, hu, turn_deg=turn, label=LABEL["spleen"], texture=5)


def liver_lobes(body: Body) -> list[tuple]:
    """Right, left and caudate lobe: centre, half axes, turn in degrees and HU of each."""
    hu, grow = body.hu("liver") + body.liver_change_hu, body.liver_scale
    # Growth goes down and to the left: the dome and the ribs hold the rest.
    right = body.place((68, 4, 66)) - (4 * (grow - 1), 0, 60 * (grow - 1))
    wide = 0.5 + 0.5 * grow
    return [
        (right, np.array([66.0 * wide, 78.0 * wide, 76.0 * grow]), (0, -8, 0), hu),
        (body.place((4, 40, 84)), np.array([64.0, 36.0, 36.0]) * wide, (0, 14, -8), hu),
        (body.place((22, -12, 88)), np.array([24.0, 20.0, 30.0]), (0, 0, 0), hu),
    ]


def _liver(shapes: ShapeList, body: Body) -> None:
    """The lobes, without what lies behind them; the gallbladder."""
    label = LABEL["liver"]
    for centre, half, turn, hu in liver_lobes(body):
        shapes.ellipsoid(centre, half, hu, turn_deg=turn, label=label, texture=5)
    # The liver lies before and above the right kidney, not around it.
    behind = body.kidney_centre(1) + (-20, -26, -16)
    half = body.kidney_axes() + (36, 34, 14)
    kept: dict[str, Any] = dict(only=label, label=0)
    shapes.ellipsoid(behind, half, body.visceral_hu, turn_deg=(-10, 12, -20), **kept)
    if body.has_gallbladder:
        centre, half = body.gallbladder_centre(), np.array([14.0, 17.0, 27.0])
        half, label = half * body.gallbladder_scale, LABEL["gallbladder"]
        shapes.ellipsoid(centre, half, 9, turn_deg=GALLBLADDER_TURN, label=label)


def kidney_turn(side: int) -> tuple[float, float, float]:
    """Turn of the right (side = 1) or left (-1) kidney, degrees."""
    return (-10, side * 12, side * -20)


def _kidneys(shapes: ShapeList, body: Body) -> None:
    """Kidneys in their fat, then the adrenal glands above them."""
    for side, name in ((1, "kidney_right"), (-1, "kidney_left")):
        centre, label = body.kidney_centre(side), LABEL[name]
        size, turn = body.kidney_axes(), kidney_turn(side)
        shapes.ellipsoid(centre, size + 7, body.visceral_hu, turn_deg=turn)
        shapes.ellipsoid(centre, size, body.hu("kidney"), turn_deg=turn, label=label, texture=6)
        medulla = body.hu("medulla")
        shapes.ellipsoid(centre, size - 9, medulla, turn_deg=turn, texture=12, only=label)
        hilum = centre + (-side * 11, 5, 0)
        shapes.ellipsoid(hilum, (11, 8, 24), -50, turn_deg=turn, texture=18)
    for side, name in ((1, "adrenal_gland_right"), (-1, "adrenal_gland_left")):
        apex = body.place((side * 37, -30, 76 if side > 0 else 70))
        for limb in (-9, 9):
            end = apex + (side * 6 + limb * 0.3, -9 + 0.5 * limb, -20)
            shapes.tube([apex, end], (5.0, 4.0), body.hu("gland"), label=LABEL[name])


def in_liver(body: Body, rng: np.random.Generator) -> np.ndarray:
    """A place inside the liver, away from its rim, mm."""
    lobes, kidney = liver_lobes(body), body.kidney_centre(1)
    while True:
        centre, half, turn, _ = lobes[int(rng.random() < 0.2)]
        point = centre + rotation(turn).T @ (half * in_ball(rng, 0.82))
        dome = (104 if point[0] > 40 else 76) * body.height
        is_behind = point[1] < kidney[1] + 20 and point[2] < 62 * body.height
        if point[2] < dome and point[0] < body.inner_width - 16 and not is_behind:
            return point


def in_kidney(body: Body, side: int, rng: np.random.Generator) -> np.ndarray:
    """A place in the parenchyma of the right (side = 1) or left (-1) kidney, mm."""
    unit = in_ball(rng)
    while np.linalg.norm(unit) < 0.5 or unit[0] * side < -0.35:  # not in the sinus
        unit = in_ball(rng)
    turn = rotation(kidney_turn(side))
    return body.kidney_centre(side) + turn.T @ ((body.kidney_axes() - 5) * unit)


def on_gallbladder_floor(body: Body, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A place for a stone in the lower half of the gallbladder, the patient on the back, mm."""
    unit = in_ball(rng)
    while unit[1] > 0.1:
        unit = in_ball(rng)
    room = np.array([14.0, 17.0, 27.0]) * body.gallbladder_scale - radius
    return body.gallbladder_centre() + rotation(GALLBLADDER_TURN).T @ (room * unit)


def _vessels(shapes: ShapeList, body: Body) -> None:
    free = torso.ANYWHERE & ~(1 << torso.SPINE) & ~(1 << torso.OUTSIDE)
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


def _pelvis(shapes: ShapeList, body: Body) -> None:
    bladder, label = body.place((0, 26, -178)), LABEL["urinary_bladder"]
    half = np.array([37.0, 29.0, 26.0]) * body.bladder_scale
    shapes.ellipsoid(bladder, half, body.hu("muscle") - 15, label=label)
    shapes.ellipsoid(bladder, half - 3.5, 6, label=label)
    gland = body.hu("prostate")
    if body.sex == "M":
        half = np.array([20.0, 15.0, 16.0]) * body.prostate_scale
        shapes.ellipsoid(body.prostate_centre(), half, gland, label=LABEL["prostate"], texture=7)
        return
    uterus = body.place((4, -8, -166))
    shapes.ellipsoid(uterus, (25, 22, 31), gland + 12, turn_deg=(35, 0, 0), texture=7)
    for side in (1, -1):
        shapes.ellipsoid(body.place((side * 40, -6, -158)), (13, 10, 14), 38, texture=10)


def _heart(shapes: ShapeList, body: Body) -> None:
    label = LABEL["heart"]
    place: dict[str, Any] = dict(
        turn_deg=(0, 24, -28), regions=(1 << torso.THORAX) | (1 << torso.FILLED)
    )
    centre, size = body.heart_centre(), np.array([56.0, 46.0, 46.0]) * body.heart_scale
    shapes.ellipsoid(centre, size + 9, body.visceral_hu + 6, **place)
    shapes.ellipsoid(centre, size, body.hu("myocardium"), label=label, texture=5, **place)
    for shift, share in (((-16, 2, -4), 0.46), ((16, 12, -2), 0.44), ((10, -16, 16), 0.38)):
        shapes.ellipsoid(centre + shift, size * share, body.hu("blood"), only=label, **place)
