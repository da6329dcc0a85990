"""HU volumes become model inputs: RAS, 1.5 × 1.5 × 3 mm, −1000..1000 HU to 0..1, 224 × 224 × 160.

The steps and their order are those of the official MONAI chain: orient, resample linearly,
clip and scale, pad with 0 (air) and crop about the centre. The result equals that chain within
`TOLERANCE` (`OBLIQUE_TOLERANCE` for oblique volumes), short and long ones included. It is faster
because only the voxels inside the crop are sampled, and because the chain keeps a volume's own
rotation, so that three one-dimensional interpolations do unless the volume is sheared.

Axes are (R, A, S) as stated in `merlin.data.volume`. Resampled images are for the model; measure
organs on the scan's own grid.
"""

import hashlib
import json
import math
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from nibabel.orientations import inv_ornt_aff, io_orientation
from safetensors import SafetensorError, safe_open

from merlin.data.scan import LARGEST_SCAN, Volume, refusing
from merlin.data.volume import Source, content_digest, locate, read
from merlin.files import atomic

PREPROCESS_VERSION = 1  # part of every cache key: raise it when an output changes
TOLERANCE = 1e-6  # largest difference from the MONAI chain, in units of the 0..1 image: 0.002 HU
OBLIQUE_TOLERANCE = 1e-4  # the same for oblique affines that a file rounds to float32: 0.2 HU
BODY_HU = -500.0  # above this a voxel counts as body (the table counts too)
SPACING_TOL_MM = 1e-3  # MONAI's AFFINE_TOL: closer than this, the scan's own spacing is kept
SEPARABLE_TOL_VOXEL = 5e-5  # misplacement by a shear that is left out as rounding of the affine
SLAB_VOXELS = 1 << 20  # interpolated at a time: small enough for the processor's cache
CACHE_STEPS = 65535  # an image is stored as round(image * 65535): ±0.015 HU for a 2000 HU window
PACKED_FROM = 1 << 22  # bytes: smaller images are read faster than they are unpacked
FACES = (("L", "R"), ("P", "A"), ("I", "S"))  # low and high end of each axis


@dataclass(frozen=True)
class Grid:
    """The lattice and window a model expects.

    Attributes
    ----------
    spacing_mm : (3,) float
        Along R, A and S.
    shape : (3,) int
        Voxels along R, A and S.
    hu_window : (2,) float
        HU that become 0 and 1; values beyond are clipped.
    """

    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 3.0)
    shape: tuple[int, int, int] = (224, 224, 160)
    hu_window: tuple[float, float] = (-1000.0, 1000.0)

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or not min(self.spacing_mm) > 0:
            raise ValueError(f"spacing_mm must be three positive lengths, got {self.spacing_mm}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape must be three positive counts, got {self.shape}")
        if math.prod(self.shape) > LARGEST_SCAN:
            raise ValueError(
                f"shape {self.shape} is more than the {LARGEST_SCAN:,} voxels of any scan"
            )
        if len(self.hu_window) != 2 or not self.hu_window[0] < self.hu_window[1]:
            raise ValueError(f"hu_window must be (low, high), got {self.hu_window}")


@dataclass(frozen=True, eq=False)
class ModelInput:
    """One scan on the model's grid.

    Attributes
    ----------
    image : (R, A, S) float32
        In [0, 1]; 0 is the window's lower end and all padding.
    affine : (4, 4) float64
        From index of `image` to RAS+ mm.
    body_fraction : float
        Share of the scan's voxels above −500 HU (patient and table) that lie inside the crop,
        counted on a subsample of at most 64 voxels an axis.
    cut_mm : dict
        Millimetres of the scan outside the crop at each face: keys L, R, P, A, I, S.
    notes : tuple of str
        Choices and warnings, from reading and from here.
    """

    image: np.ndarray
    affine: np.ndarray
    body_fraction: float
    cut_mm: dict[str, float]
    notes: tuple[str, ...]


DEFAULT_GRID = Grid()


def load_input(
    path: str | Path | Source,
    grid: Grid = DEFAULT_GRID,
    *,
    cache_dir: str | Path | None = None,
    assume_hu: bool = False,
) -> ModelInput:
    """Read a NIfTI file or DICOM folder and bring it to the model's grid: the one call.

    With a cache the image is rounded to 1/65535 (±0.015 HU) on the first call as on later ones,
    so a result does not depend on whether it was cached.

    Parameters
    ----------
    path : path or Source
        See `merlin.data.volume.load_volume`; or what `locate` found there.
    grid : Grid
    cache_dir : path, optional
        Made if absent. Entries are named by a hash of the files' content, the grid,
        `assume_hu` and `PREPROCESS_VERSION`, and hold no path and nothing from a header but
        geometry, series numbers and kernels. Images of the paper's size are compressed.
    assume_hu : bool
        Accept values that do not look like HU.

    Returns
    -------
    ModelInput
        A damaged cache entry is rebuilt, and `notes` says so.

    Raises
    ------
    UnreadableScan, FileNotFoundError
        As `merlin.data.volume.load_volume`.
    """
    name = path.path if isinstance(path, Source) else path
    with refusing(name):
        source = path if isinstance(path, Source) else locate(path)
        if cache_dir is None:
            return preprocess(read(source, assume_hu=assume_hu), grid)
        digest = content_digest(source)
    entry = Path(cache_dir) / f"{_cache_key(digest, grid, assume_hu)}.safetensors"
    is_damaged = False
    if entry.exists():
        try:
            return _read_entry(entry)
        except (SafetensorError, ValueError, KeyError, TypeError, zlib.error):
            is_damaged = True
    with refusing(name):
        result = preprocess(read(source, assume_hu=assume_hu), grid)
    result = _write_entry(entry, result, grid)
    if is_damaged:
        note = "The cache entry of this scan was damaged and has been rebuilt."
        result = replace(result, notes=(*result.notes, note))
    return result


def preprocess(volume: Volume, grid: Grid = DEFAULT_GRID) -> ModelInput:
    """Orient, resample, window, pad and crop one volume.

    Parameters
    ----------
    volume : Volume
        HU and affine; any orientation, oblique or sheared.
    grid : Grid

    Returns
    -------
    ModelInput

    Notes
    -----
    Beyond the outermost voxel centres the edge voxel is repeated, as MONAI's border padding does:
    that matters at the last plane, and in the wedges beside a gantry-tilted stack.
    """
    plan = _plan(volume, grid)
    low, high = grid.hu_window
    image = _sample_separable(volume.hu, plan) if plan.is_separable else _sample(volume.hu, plan)
    image -= np.float32(low)
    image *= np.float32(1.0 / (high - low))
    np.clip(image, 0.0, 1.0, out=image)
    if plan.n_sampled != grid.shape:
        padded = np.zeros(grid.shape, np.float32)
        padded[tuple(slice(p, p + n) for p, n in zip(plan.pad, plan.n_sampled, strict=True))] = (
            image
        )
        image = padded
    image = np.ascontiguousarray(image)
    body_fraction = _body_fraction(volume.hu, plan)
    notes = volume.notes
    if body_fraction < 0.995:
        cut = ", ".join(f"{face} {mm:.0f} mm" for face, mm in plan.cut_mm.items() if mm >= 1)
        notes = (*notes, f"{1 - body_fraction:.1%} of the body lies outside the crop ({cut}).")
    return ModelInput(image, plan.affine, body_fraction, plan.cut_mm, notes)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where each voxel of the crop lies in the stored array."""

    ornt: np.ndarray  # nibabel orientation of the stored axes, (3, 2)
    ras_shape: tuple[int, ...]
    xform: np.ndarray  # index of the sampled block -> index in the RAS-oriented array, (4, 4)
    n_sampled: tuple[int, ...]  # voxels of the crop that the scan fills
    pad: tuple[int, ...]  # padding voxels before them
    affine: np.ndarray  # of the crop
    cut_mm: dict[str, float]
    is_separable: bool


def _plan(volume: Volume, grid: Grid) -> _Plan:
    """Geometry of MONAI's Orientationd, Spacingd, SpatialPadd and CenterSpatialCropd together."""
    ornt = io_orientation(volume.affine)
    ras_shape = tuple(int(volume.hu.shape[np.flatnonzero(ornt[:, 0] == a)[0]]) for a in range(3))
    source = volume.affine @ inv_ornt_aff(ornt, volume.hu.shape)
    target, n_out = _resampled_lattice(source, ras_shape, grid.spacing_mm)
    is_unchanged = n_out == ras_shape and np.allclose(source, target, atol=SPACING_TOL_MM)
    xform = np.eye(4) if is_unchanged else np.linalg.solve(source, target)

    pad = tuple(max(t - n, 0) // 2 for t, n in zip(grid.shape, n_out, strict=True))
    start = tuple(max(n // 2 - t // 2, 0) for t, n in zip(grid.shape, n_out, strict=True))
    start = tuple(s if n > t else 0 for s, n, t in zip(start, n_out, grid.shape, strict=True))
    n_sampled = tuple(min(t, n) for t, n in zip(grid.shape, n_out, strict=True))
    step = np.linalg.norm(target[:3, :3], axis=0)
    cut_mm = {}
    for a, (low, high) in enumerate(FACES):
        cut_mm[low] = float(start[a] * step[a])
        cut_mm[high] = float((n_out[a] - start[a] - n_sampled[a]) * step[a])
    shift = np.eye(4)
    shift[:3, 3] = start
    crop_shift = np.eye(4)
    crop_shift[:3, 3] = np.subtract(start, pad)
    xform = xform @ shift
    # Shear misplaces nothing at the block's middle, most at its corners: the diagonal is set there.
    middle = (np.asarray(n_sampled) - 1) / 2
    shear = xform[:3, :3] - np.diag(np.diag(xform[:3, :3]))
    is_separable = bool((np.abs(shear) @ middle).max() < SEPARABLE_TOL_VOXEL)
    if is_separable:
        xform[:3, 3] += shear @ middle
        xform[:3, :3] -= shear
    affine = target @ crop_shift
    return _Plan(ornt, ras_shape, xform, n_sampled, pad, affine, cut_mm, is_separable)


def _resampled_lattice(
    source: np.ndarray, shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape MONAI's Spacing gives (zoom_affine, then compute_shape_offset).

    The rotation is kept and shear removed. Rounding and the test for the origin follow MONAI
    operation by operation, because a tie decides between two lattices.
    """
    own = np.linalg.norm(source[:3, :3], axis=0)
    wanted = np.asarray(spacing_mm, float)
    step = np.where(np.abs(own - wanted) <= SPACING_TOL_MM, own, wanted)
    zoom = np.linalg.cholesky(source[:3, :3].T @ source[:3, :3]).T
    target = np.eye(4)
    target[:3, :3] = source[:3, :3] @ np.linalg.inv(zoom) @ np.diag(step)

    ends = np.meshgrid(*[(0.0, n - 1.0) for n in shape], indexing="ij")
    corners = np.concatenate([np.reshape(ends, (3, -1)), np.ones((1, 8))])
    at = (np.linalg.solve(target, source) @ corners)[:3]  # (3, 8) in units of the new voxels
    n_out = np.round(np.ptp(at, axis=1) + 1.0)
    first = at - at.min(axis=1, keepdims=True)
    is_origin = (first <= 1e-8).all(axis=0)
    if is_origin.any():
        target[:3, 3] = (source @ corners)[:3, np.argmax(is_origin)]
    else:  # sheared, if only by rounding: no corner is lowest on all axes, so centres are matched
        centre = source[:3, :3] @ (np.asarray(shape) / 2.0) + source[:3, 3]
        target[:3, 3] = centre - target[:3, :3] @ (n_out / 2.0)
    return target, tuple(int(n) for n in n_out)


def _sample_separable(hu: np.ndarray, plan: _Plan) -> np.ndarray:
    """Linear interpolation axis by axis: (R, A, S) float32 HU.

    Works through the array in its memory order, slab by slab, so nothing larger than the result
    and the planes it needs is ever made.
    """
    order = np.argsort([-abs(s) for s in hu.strides], kind="stable")
    low, high, weight = zip(*[_neighbours(plan, int(axis)) for axis in order], strict=True)
    stored = hu.transpose(order)
    planes, at = np.unique(np.concatenate([low[0], high[0]]), return_inverse=True)
    at_low, at_high = np.split(at, 2)
    columns = slice(min(low[2].min(), high[2].min()), max(low[2].max(), high[2].max()) + 1)
    width = columns.stop - columns.start
    weight_rows = weight[1][:, None]

    reduced = np.empty((len(planes), len(low[1]), len(low[2])), np.float32)
    n_planes = max(1, SLAB_VOXELS // (width * len(low[1])))
    for a in range(0, len(planes), n_planes):
        p = planes[a : a + n_planes, None]
        rows = stored[p, low[1], columns].astype(np.float32)
        rows += weight_rows * (stored[p, high[1], columns] - rows)
        left = rows.take(low[2] - columns.start, axis=2)
        right = rows.take(high[2] - columns.start, axis=2)
        right -= left
        right *= weight[2]
        np.add(left, right, out=reduced[a : a + n_planes])
    result = np.empty((len(low[0]), *reduced.shape[1:]), np.float32)
    for k, w in enumerate(weight[0]):
        below = reduced[at_low[k]]
        np.multiply(reduced[at_high[k]] - below, w, out=result[k])
        result[k] += below
    return result.transpose(np.argsort(plan.ornt[order, 0]))  # stored axes to R, A, S


def _neighbours(plan: _Plan, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both neighbours in the array and the second one's weight, for each output index."""
    ras, flip = int(plan.ornt[axis, 0]), plan.ornt[axis, 1]
    last = plan.ras_shape[ras] - 1
    x = plan.xform[ras, ras] * np.arange(plan.n_sampled[ras]) + plan.xform[ras, 3]
    x = np.clip(x, 0.0, last)
    if flip < 0:
        x = last - x
    low = np.floor(x).astype(np.intp)
    return low, np.minimum(low + 1, last), (x - low).astype(np.float32)


def _sample(hu: np.ndarray, plan: _Plan) -> np.ndarray:
    """Trilinear interpolation through a full affine, for sheared volumes: (R, A, S) float32 HU."""
    from merlin.data.trilinear import sample  # compiles once; few scans are sheared

    axes = np.argsort(plan.ornt[:, 0])
    ras = hu.transpose(axes)[tuple(slice(None, None, int(plan.ornt[s, 1])) for s in axes)]
    result = np.empty(plan.n_sampled, np.float32)
    n_threads = min(4, os.cpu_count() or 1, plan.n_sampled[0])  # the kernel lets go of the GIL
    bounds = np.linspace(0, plan.n_sampled[0], n_threads + 1).astype(int)
    with ThreadPoolExecutor(n_threads) as pool:
        rows = lambda low, high: sample(ras, plan.xform, result, low, high)  # noqa: E731
        list(pool.map(rows, bounds[:-1], bounds[1:]))
    return result


def _body_fraction(hu: np.ndarray, plan: _Plan) -> float:
    """Share of voxels above `BODY_HU` inside the crop; 1 for a volume that has none."""
    stride = [max(1, -(-n // 64)) for n in hu.shape]
    body = hu[:: stride[0], :: stride[1], :: stride[2]] > BODY_HU
    total = np.count_nonzero(body)
    if total == 0 or not any(plan.cut_mm.values()):
        return 1.0
    if not plan.is_separable:
        index = np.argwhere(body) * stride
        return float(_inside(index, plan).mean())
    for axis in range(3):
        index = np.zeros((body.shape[axis], 3))
        index[:, axis] = np.arange(body.shape[axis]) * stride[axis]
        body = body.compress(_inside(index, plan, only=int(plan.ornt[axis, 0])), axis=axis)
    return float(np.count_nonzero(body) / total)


def _inside(index: np.ndarray, plan: _Plan, only: int | None = None) -> np.ndarray:
    """Whether stored indices (n, 3) fall into the crop, on all axes or on one of R, A, S."""
    ras = np.empty_like(index, dtype=float)
    for axis in range(3):
        a = int(plan.ornt[axis, 0])
        x = index[:, axis]
        ras[:, a] = x if plan.ornt[axis, 1] > 0 else plan.ras_shape[a] - 1 - x
    out = np.linalg.solve(plan.xform[:3, :3], (ras - plan.xform[:3, 3]).T).T
    # A face that nothing was cut from keeps the rim of half a voxel around the outermost centres.
    faces = np.array([[plan.cut_mm[low] > 0, plan.cut_mm[high] > 0] for low, high in FACES])
    lower = np.where(faces[:, 0], -0.5, -np.inf)
    upper = np.where(faces[:, 1], np.asarray(plan.n_sampled) - 0.5, np.inf)
    inside = (out >= lower) & (out < upper)
    return np.all(inside, axis=1) if only is None else inside[:, only]


def _cache_key(digest: str, grid: Grid, assume_hu: bool) -> str:
    settings = {"grid": asdict(grid), "assume_hu": assume_hu, "version": PREPROCESS_VERSION}
    text = digest + json.dumps(settings, sort_keys=True, default=float)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_entry(entry: Path, result: ModelInput, grid: Grid) -> ModelInput:
    """Store `result` under a temporary name, then rename; return it as it will be read back."""
    steps = np.ascontiguousarray(np.rint(result.image * np.float32(CACHE_STEPS)).astype(np.uint16))
    about = json.dumps(
        {
            "affine": result.affine.tolist(),
            "body_fraction": result.body_fraction,
            "cut_mm": result.cut_mm,
            "notes": result.notes,
            "grid": asdict(grid),
            "version": PREPROCESS_VERSION,
        },
        default=float,
    )
    metadata = {"about": about, "checksum": _checksum(steps, about)}
    tensors = {"image": steps}
    if steps.nbytes >= PACKED_FROM:
        tensors = {"packed": _packed(steps)}
        metadata["shape"] = json.dumps(steps.shape)
    content = safetensors.numpy.save(tensors, metadata)
    with atomic(entry, "wb") as file:
        file.write(content)
    return replace(result, image=_from_steps(steps))


_checked: set[tuple[Path, int, int]] = set()  # entries whose checksum this process has seen to hold


def _read_entry(entry: Path) -> ModelInput:
    now = entry.stat()
    version = entry, now.st_size, now.st_mtime_ns
    with safe_open(entry, framework="numpy") as file:
        metadata = file.metadata() or {}
        if "shape" in metadata:
            steps = _unpacked(file.get_tensor("packed"), json.loads(metadata["shape"]))
        else:
            steps = file.get_tensor("image")
    if version not in _checked:
        if metadata["checksum"] != _checksum(steps, metadata["about"]):
            raise ValueError(f"{entry}: checksum differs from the content")
        _checked.add(version)
    about = json.loads(metadata["about"])
    return ModelInput(
        _from_steps(steps),
        np.array(about["affine"]),
        about["body_fraction"],
        about["cut_mm"],
        tuple(about["notes"]),
    )


def _packed(steps: np.ndarray) -> np.ndarray:
    """Compressed bytes of uint16 steps; low and high bytes apart, since only the high ones repeat."""
    low_high = np.ascontiguousarray(steps.reshape(-1).view(np.uint8).reshape(-1, 2).T)
    return np.frombuffer(zlib.compress(low_high.data, 1), np.uint8)


def _unpacked(packed: np.ndarray, shape: list[int]) -> np.ndarray:
    low_high = np.frombuffer(zlib.decompress(packed.data), np.uint8).reshape(2, -1)
    return np.ascontiguousarray(low_high.T).view(np.uint16).reshape(shape)


def _checksum(steps: np.ndarray, about: str) -> str:
    digest = hashlib.sha256(about.encode())
    digest.update(steps.data)
    return digest.hexdigest()


def _from_steps(steps: np.ndarray) -> np.ndarray:
    return np.divide(steps, np.float32(CACHE_STEPS), dtype=np.float32)
