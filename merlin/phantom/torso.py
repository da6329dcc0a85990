"""The torso as a function of position: skin, fat, wall and ribs, lungs and fluid, spine, table.

Its kernels give HU, region and label of one voxel; what lies inside the abdomen is painted over it
by `render`. Units are mm and HU; x to the patient's right, y anterior, z superior.
"""

from typing import NamedTuple

import numpy as np

from merlin.compiled import njit

# Where a voxel lies; shapes may be limited to some of these (as a bit mask of 1 << region).
OUTSIDE, SKIN, SUBCUTANEOUS, WALL, ABDOMEN, THORAX, SPINE, FILLED = range(8)
ANYWHERE = (1 << 8) - 1
INSIDE_ABDOMEN = 1 << ABDOMEN
INSIDE_THORAX = 1 << THORAX

PERIOD_MM = 35.0  # one vertebra with its disc


class Torso(NamedTuple):
    """Everything outside the organs; lengths in mm, densities in HU."""

    width: float  # half width of the body at the waist, skin included
    depth: float  # half depth, front to back
    height: float  # stretch along z: 1 is the reference patient
    fat: float  # subcutaneous fat, mm
    muscle: float  # abdominal wall, mm
    fat_hu: float
    visceral_hu: float
    muscle_hu: float
    fat_stranding: float  # 0 none to 1 anasarca
    trabecular_hu: float  # inside the vertebrae
    cortical_hu: float
    lung_hu: float
    dome_right: float  # height of the diaphragm's domes
    dome_left: float
    mediastinum: float  # half width, mm
    free_air: float  # thickness of the anterior gas, mm
    effusion_right: float  # thickness of the pleural fluid, mm
    effusion_left: float
    atelectasis_right: float  # thickness of the collapsed base, mm
    atelectasis_left: float
    fluid_hu: float
    table_y: float
    arms: float  # 1 if the arms lie beside the body


@njit(fastmath=True)
def _profile(z, chest, waist, hips):
    """Half width along z: chest above +60 mm, waist at -40, hips below -140; smooth between."""
    if z > -40.0:
        t = min((z + 40.0) / 120.0, 1.0)
        t = t * t * (3 - 2 * t)
        return waist + (chest - waist) * t
    t = min((-40.0 - z) / 110.0, 1.0)
    t = t * t * (3 - 2 * t)
    return waist + (hips - waist) * t


@njit(fastmath=True)
def _soft(hu, new, signed_distance, edge):
    """Blend `new` over `hu` where the distance to the surface is within half an edge."""
    w = 0.5 - signed_distance / edge
    if w <= 0.0:
        return hu
    if w >= 1.0:
        return new
    return hu + (new - hu) * w


@njit(fastmath=True)
def _vertebra(hu, sd, ys, f, lost, torso, edge):
    """HU of a vertebral body or its disc; `f` is the height above the segment's lower edge, mm."""
    # A wedge loses height at the front; the back wall stands.
    top = 28.0 * (1.0 - lost * min(max((ys + 20.0) / 25.0, 0.25), 1.0))
    inside = -min(f, top - f)
    tissue = 78.0
    if f < top:
        shell = max(sd, inside)
        tissue = torso.trabecular_hu
        if shell > -3.5:
            tissue = 0.5 * (torso.trabecular_hu + torso.cortical_hu)
        tissue += 260.0 * lost * max(0.0, 1.0 - shell / -9.0)  # impacted bone is denser
    elif lost > 0.0 and f < 28.0:
        tissue = 45.0
    return _soft(hu, tissue, sd, edge), f < top and sd < 0


@njit(fastmath=True)
def _spine(x, y, z, hu, region, torso, loss, edge, vertebra_label):
    """HU, region and label of one voxel near the spine; `loss` is the height lost per vertebra."""
    label = 0
    ys = y - (-0.40 * torso.depth - 6.0 * np.cos((z + 20.0) / 75.0))
    level = (z + 260.0) / PERIOD_MM
    n = int(np.floor(level))
    f = (level - n) * PERIOD_MM  # mm above the lower edge of this segment
    body = np.sqrt((x / 23.0) ** 2 + (ys / 17.0) ** 2)
    sd = (body - 1.0) * 18.0
    if sd < edge:
        lost = loss[n] if 0 <= n < loss.size else 0.0
        hu, is_bone = _vertebra(hu, sd, ys, f, lost, torso, edge)
        if is_bone:
            label = vertebra_label
        if sd < 0:
            region = SPINE
    yc = ys + 26.0
    canal = np.sqrt((x / 11.0) ** 2 + (yc / 9.0) ** 2)
    ring = (canal - 1.0) * 9.0
    if ring < 8.0 and sd > 0:
        bone = 0.45 * torso.cortical_hu + 0.4 * torso.trabecular_hu
        if ring < 0:
            hu = 28.0
        elif f < 26.0:
            hu = _soft(hu, bone, ring - 6.0, edge)
            if ring < 6.0:
                label = vertebra_label
        region = SPINE
    process = max(abs(x) - 3.5, max(yc + 8.0, -yc - 40.0))
    wings = max(abs(x) - 42.0, max(abs(yc - 6.0) - 4.0, abs(f - 13.0) - 6.0))
    outcrop = min(process if f < 22.0 else 99.0, wings)
    if outcrop < edge and ring > 0 and sd > 0:
        hu = _soft(hu, 0.5 * torso.cortical_hu + 0.3 * torso.trabecular_hu, outcrop, edge)
        if outcrop < 0:
            label = vertebra_label
            region = SPINE
    return hu, region, label


@njit(fastmath=True)
def _around(x, y, a, sd, table, torso, edge):
    """HU outside the skin: air, the table, arms beside the body."""
    v = -1000.0
    if sd > 0 and abs(x) < 215.0 and table < 7.0 + edge:
        v = _soft(v, -620.0 if table < 4.0 else -350.0, table - 7.0, edge)
    if torso.arms > 0:
        arm = np.sqrt((abs(x) - a - 34.0) ** 2 + (y + 15.0) ** 2) - 29.0
        if arm < edge and sd > 0:
            v = _soft(v, 45.0 if arm < -6.0 else -90.0, arm, edge)
            if arm < -17.0:
                v = 420.0
    return v


@njit(fastmath=True)
def _ribs(v, x, y, z, b, shell, torso, edge):
    """HU in the middle of the wall, where ribs can be."""
    angle = np.arctan2(abs(x), y + 0.2 * b)
    phase = (z - 16.0 * np.cos(angle)) / 25.0
    bone = max(abs(phase - np.round(phase)) * 25.0 - 4.2, shell)
    if z > 30.0 + 40.0 * np.cos(angle) and bone < edge:
        v = _soft(v, 0.55 * torso.cortical_hu + 60.0, bone, edge)
    return v


@njit(fastmath=True)
def _above_diaphragm(x, y, z, torso):
    """Height over the domes of the diaphragm, mm; -1 where it lies nowhere."""
    if z <= 58.0:
        return -1.0
    right = torso.dome_right * np.exp(-(((x - 62.0) / 62.0) ** 2) - ((y - 12.0) / 74.0) ** 2)
    left = torso.dome_left * np.exp(-(((x + 62.0) / 58.0) ** 2) - ((y - 14.0) / 70.0) ** 2)
    return z - 58.0 - max(right, left)


@njit(fastmath=True)
def _chest(v, x, y, z, b, above, deep, m, torso, edge, ids):
    """HU and label of lung, fluid behind it and collapsed bases."""
    is_right = x > 0
    v = _soft(v, torso.lung_hu + 70.0 * max(0.0, -y / b), -above, edge)
    if m > 1.5:
        v += 260.0 * (m - 1.5)  # vessels
    what = ids[0] if is_right else ids[1]
    fluid = torso.effusion_right if is_right else torso.effusion_left
    collapse = torso.atelectasis_right if is_right else torso.atelectasis_left
    behind = max(0.0, min(1.0, (0.35 * b - y) / (0.8 * b)))
    low = behind * max(0.0, 1.0 - (z - 60.0) / 115.0)
    if fluid > 0 and deep < fluid * low:
        v = torso.fluid_hu + 4.0
        what = 0
    elif collapse > 0 and (
        deep < (fluid + collapse * (1.0 + 0.25 * m)) * low
        or abs(above - 9.0 - 0.16 * collapse * (1 + y / b)) < 0.17 * collapse
    ):
        v = 18.0 + 22.0 * m
    return v, what


@njit(fastmath=True)
def _belly(v, x, z, front, torso):
    """HU and region below the diaphragm: fat, and air in front."""
    where = ABDOMEN
    gas = torso.free_air * (1.0 - (x / 105.0) ** 2)
    if torso.free_air > 0 and front < gas and -60.0 < z:
        v = -985.0
        where = FILLED
    return v, where


@njit(fastmath=True)
def _inside(v, x, y, z, a, b, sd, m, torso, edge, ids):
    """HU, region and label from the skin inwards, without the spine."""
    fat = torso.fat_hu + torso.fat_stranding * (42.0 + 26.0 * m) + 6.0 * m
    skin = 2.0 + 2.5 * torso.fat_stranding
    v = _soft(v, 15.0, sd, edge)
    where = SKIN if sd < 0 else OUTSIDE
    what = 0
    v = _soft(v, fat, sd + skin, edge)
    if sd < -skin:
        where = SUBCUTANEOUS
    # Thin in front of the gut, thick at the flanks and beside the spine.
    back = 0.72 + 0.3 * min(abs(x) / a, 1.0) + 0.8 * max(0.0, -y / b)
    flank = torso.fat * (0.75 + 0.45 * max(0.0, -y / b) + 0.25 * max(0.0, -z / 150.0))
    wall = sd + flank + skin
    inner = wall + torso.muscle * back
    v = _soft(v, torso.muscle_hu + 7.0 * m, wall, edge)
    if wall < 0:
        where = WALL
        shell = abs(wall + 0.5 * torso.muscle * back) - 3.2
        if shell < edge and z > -10.0:
            v = _ribs(v, x, y, z, b, shell, torso, edge)
    if inner < edge:
        above = _above_diaphragm(x, y, z, torso)
        v = _soft(v, torso.visceral_hu + 9.0 * m, inner, edge)
        if inner < 0 and above > 0:
            where = THORAX
            if abs(x) > torso.mediastinum - 0.10 * above:
                v, what = _chest(v, x, y, z, b, above, -inner, m, torso, edge, ids)
        elif inner < 0:
            front = b - flank - skin - torso.muscle - y
            v, where = _belly(v, x, z, front, torso)
    return v, where, what


@njit(fastmath=True)
def paint_torso(hu, label, region, warped, axis_y, mottle, torso, loss, edge, ids):
    """Fill the grid with everything that is not an organ. `ids`: lung right, lung left, vertebrae."""
    for i in range(hu.shape[0]):
        for j in range(hu.shape[1]):
            for k in range(hu.shape[2]):
                x = warped[0, i, j, k]
                y = warped[1, i, j, k]
                z = warped[2, i, j, k] / torso.height
                a = _profile(z, torso.width * 1.02, torso.width, torso.width * 1.08)
                b = _profile(z, torso.depth * 1.03, torso.depth, torso.depth * 1.04)
                u, v = abs(x) / a, abs(y) / b
                # A superellipse of exponent 2.5: flatter front and flanks than an ellipse.
                r = 2.0 if u + v > 2.0 else (u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** 0.4
                sd = (r - 1.0) * b  # mm outside the skin, roughly
                table = abs(axis_y[j] - torso.table_y - 0.0006 * x * x)
                v = _around(x, y, a, sd, table, torso, edge)
                where = OUTSIDE
                what = 0
                if sd < edge:
                    v, where, what = _inside(
                        v, x, y, z, a, b, sd, mottle[i, j, k], torso, edge, ids
                    )
                    # Nothing of a vertebra reaches farther than this from the middle or to the front;
                    # below, the sacrum is a shape of its own.
                    near_spine = abs(x) < 42.0 + edge and y + 0.40 * torso.depth < 24.0 + edge
                    if r < 0.9 and near_spine and z >= -85.0:
                        v, where, found = _spine(x, y, z, v, where, torso, loss, edge, ids[2])
                        if found > 0:
                            what = found
                hu[i, j, k] = v
                label[i, j, k] = what
                region[i, j, k] = where
