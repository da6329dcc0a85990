"""`make bench`: speed and memory of ours beside the other way, interleaved in one run.

    python scripts/bench.py [--full] [NAME …]     # names: auroc, phenotypes, preprocess, retrieval, …

Prints a table with the machine and asserts nothing about seconds: they are the machine's and its
neighbours'. `--full` takes the paper's volume size for the encoder. Where a GPU is, its part runs too.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def timed(call):
    """Seconds of a call, and what it gave."""
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def interleaved(ours, other, n=3):
    """The shortest seconds of each of two calls, taken in turn, and their last results."""
    taken = [(timed(ours), timed(other)) for _ in range(n)]
    best = [min(pair[k][0] for pair in taken) for k in range(2)]
    return *best, taken[-1][0][1], taken[-1][1][1]


def row(what, ours, other, than, *, note="", is_over=False):
    """One line of the table; `is_over`: took more memory than it may, which fails the command."""
    return dict(
        what=what, ours=f"{ours:.3g} s", other=f"{other:.3g} s", ratio=f"{other / ours:.3g}",
        than=than, note=note, is_over=is_over,
    )  # fmt: skip


def auroc(_):
    """AUROC of 1,000 resamples, 30 findings and 5,000 studies."""
    return [_bootstrap(5_000, 30, "AUROC, 30 labels × 1,000 resamples × 5,000 studies")]


def phenotypes(_):
    """The same for all phenotypes of the paper."""
    return [_bootstrap(5_137, 692, "AUROC, 692 labels × 1,000 resamples × 5,137 studies")]


def _bootstrap(n, n_labels, what):
    from sklearn.metrics import roc_auc_score

    from merlin.statistics import bootstrap, metrics

    rng = np.random.default_rng(7)
    labels = (rng.random((n, n_labels)) < rng.uniform(0.02, 0.3, n_labels)).astype(float)
    scores = np.round(rng.normal(size=(n, n_labels)) + labels, 3)  # with ties
    weights = bootstrap.patient_weights(rng.integers(0, 4_000, n), 1_000, seed=7)
    metrics.auroc(scores[:10], labels[:10], weights[:10])  # compiles

    def loop():
        return [
            [
                roc_auc_score(labels[:, j], scores[:, j], sample_weight=weights[:, r])
                for r in range(5)
            ]
            for j in range(3)
        ]

    mine, other, found, theirs = interleaved(
        lambda: metrics.auroc(scores, labels, weights), loop, 2
    )
    gap = np.abs(found[:3, :5] - np.array(theirs)).max()
    return row(
        what, mine, other / 15 * n_labels * 1_000, "a loop over scikit-learn (extrapolated)",
        note=f"largest difference {gap:.0e}",
    )  # fmt: skip


def preprocess(folder):
    """One 512 × 512 × 100 scan to the model's grid, against the official MONAI chain."""
    import nibabel as nib
    from scipy.ndimage import gaussian_filter

    from merlin.data.preprocess import Grid, load_input

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import monai.transforms as m

    grid, rng = Grid(), np.random.default_rng(7)
    texture = rng.normal(0, 1, (128, 128, 25)).astype(np.float32)
    tissue = 60 + 300 * np.kron(gaussian_filter(texture, 1), np.ones((4, 4, 4), np.float32))
    tissue += rng.normal(0, 15, tissue.shape).astype(np.float32)
    tissue[:64] = tissue[-64:] = -1000
    chain = m.Compose(
        [
            m.LoadImaged(keys="image"),
            m.EnsureChannelFirstd(keys="image"),
            m.Orientationd(keys="image", axcodes="RAS"),
            m.Spacingd(keys="image", pixdim=grid.spacing_mm, mode="bilinear"),
            m.ScaleIntensityRanged("image", -1000, 1000, 0.0, 1.0, clip=True),
            m.SpatialPadd(keys="image", spatial_size=grid.shape),
            m.CenterSpatialCropd(keys="image", roi_size=grid.shape),
        ]
    )
    straight = np.diag([-0.8, -0.8, 2.5, 1.0])
    tilted = straight.copy()  # a tilted gantry: each slice lies a little further forward
    tilted[1, 2] = 2.5 * np.tan(np.radians(12.0))
    rows = []
    for name, affine in (("axis-aligned", straight), ("tilted gantry", tilted)):
        path = folder / "scan.nii"
        nib.save(nib.Nifti1Image(tissue.astype(np.int16), affine), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine, other, found, theirs = interleaved(
                lambda p=path: load_input(p), lambda p=path: chain({"image": p})["image"]
            )
        gap = np.abs(theirs.numpy()[0] - found.image).max()
        said = f"largest difference {gap:.0e}"
        rows.append(row(f"preprocessing, {name}", mine, other, "MONAI", note=said))
    return rows


def _spin():
    while True:
        np.random.default_rng(0).random((300, 300)) @ np.eye(300)


def retrieval(_):
    """Both directions of 5,000 × 5,000, alone and beside a process that keeps one core busy."""
    from merlin.evaluation import retrieval as judged

    rng = np.random.default_rng(7)
    text = rng.normal(size=(5_000, 512)).astype(np.float32)
    image = text + rng.normal(size=text.shape).astype(np.float32)
    common = (np.arange(5_000), rng.integers(0, 4_000, 5_000).astype(str))
    how = dict(text_name="findings", model="m", split="test", seed=1)

    def ours():
        return judged.evaluate(image, text, *common, **how)

    def sorts():
        return [np.argsort(-(a @ b.T), axis=1) for a, b in ((image, text), (text, image))]

    quiet, other, *_ = interleaved(ours, sorts)
    busy = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    busy.start()
    time.sleep(2)
    beside, _ = timed(ours)
    busy.kill()
    return [
        row("retrieval, 5,000 × 5,000", quiet, other, "two full sorts"),
        row("the same beside a busy core", beside, quiet, "alone"),
    ]


def encoder(folder, shape="112,112,160"):
    """ResNet-152, folded, on one volume."""
    return [_official(folder, shape, "infer", "inference")]


def training(folder, shape="64,64,80"):
    """A step of ResNet-152: ours recomputes once, the official module twice."""
    return [_official(folder, shape, "train", "a training step")]


def _official(folder, shape, mode, what):
    if not (ROOT / ".venv/official/merlin/models/i3res.py").is_file():
        return dict(what=what, note="make setup fetches the official modules; they are not there")
    found = {}
    for kind in ("official", "ours"):
        command = [sys.executable, str(ROOT / "scripts" / "bench_encoder.py"), kind, mode, shape]
        done = subprocess.run(
            [*command, str(folder)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    a, b = (np.load(folder / f"{kind}.npz") for kind in found)
    gap = max(float(np.abs(a[k] - b[k]).max()) for k in a.files)
    memory = f"{found['ours'][1]:.2f} GB against {found['official'][1]:.2f}"
    where = f"ResNet-152, {what}, {shape.replace(',', '×')}"
    return row(
        where, found["ours"][0], found["official"][0], "the official module",
        note=f"{memory}, largest difference {gap:.0e}",
        is_over=found["ours"][1] > 1.05 * found["official"][1],
    )  # fmt: skip


def estimate(_):
    """What `02_pretraining` says a step will take, beside that step."""
    import torch

    from merlin.model.cpu import prepare_cpu
    from merlin.model.i3d import ImageConfig
    from merlin.model.text import TextConfig
    from merlin.model.two_towers import TowersConfig, TwoTowers
    from merlin.training import parallel
    from merlin.training.config import TrainingConfig

    shape, rows = (64, 64, 48), []
    prepare_cpu(1)
    torch.manual_seed(0)
    image = ImageConfig(depth=26, width=16, n_phecodes=8, in_channels=1)
    text = TextConfig(kind="small", hidden_size=32, n_layers=1, max_length=32)
    towers = TwoTowers(TowersConfig(image, text, shape)).train()

    def step(config):
        found, logits, finish = parallel.embed_volumes(
            towers, torch.rand(16, 1, *shape), config.chunk
        )
        (found.square().sum() + logits.square().sum()).backward()
        finish()

    for chunk in (0, 4):
        config = TrainingConfig(n_steps=1, batch_size=16, learning_rate=1e-3, chunk=chunk)
        said = min(parallel.estimate_seconds(towers, config, shape) for _ in range(2))
        taken = min(timed(lambda c=config: step(c))[0] for _ in range(3))
        rows.append(row(f"a step of 16 volumes, chunks of {chunk or 16}", said, taken, "measured",
                        note="ours is the estimate"))  # fmt: skip
    return rows


def gpu(_):
    """On a GPU: a step at the paper's volume size in half precision beside fp32, time and memory."""
    import torch

    if not torch.cuda.is_available():
        return [dict(what="GPU", note="none here: not measured")]
    from merlin.model.i3d import ImageConfig, ImageEncoder

    model = ImageEncoder(ImageConfig(), checkpointing=True).cuda().train()
    found = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        volume = torch.rand(2, 1, 224, 224, 160, device="cuda")

        def step(x=volume, dtype=dtype):
            with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                out = model(x)
            sum(f.float().square().mean() for f in out[:2]).backward()
            torch.cuda.synchronize()

        step()
        torch.cuda.reset_peak_memory_stats()
        found[name] = min(timed(step)[0] for _ in range(3)), torch.cuda.max_memory_allocated() / 1e9
    rows = [
        row(f"a step of 2 volumes 224×224×160, {n}", found[n][0], found["fp32"][0], "fp32",
            note=f"{found[n][1]:.1f} GB against {found['fp32'][1]:.1f}")
        for n in ("fp16", "bf16")
    ]  # fmt: skip
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"]
    code = subprocess.run(tests, cwd=ROOT, check=False).returncode
    return [*rows, dict(what="tests marked gpu", note="pass" if not code else f"exit code {code}")]


BENCHES = {f.__name__: f for f in (auroc, phenotypes, preprocess, retrieval, encoder, training,
                                   estimate, gpu)}  # fmt: skip


def machine():
    """Processor, cores in use, memory, threads and versions: what seconds depend on."""
    import torch

    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((x.split(":")[1].strip() for x in about.splitlines() if "model name" in x), "")
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{model or platform.processor()}, {len(os.sched_getaffinity(0))} cores{card}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}; load "
        f"{os.getloadavg()[0]:.1f} at the start"
    )


def main():
    """Run the named benchmarks, or all, and print their table; the exit code tells of memory."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="default: all")
    parser.add_argument("--full", action="store_true", help="the encoder at 224×224×160")
    args = parser.parse_args()
    said, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or BENCHES:
            sys.stderr.write(f"{name} …\n")
            more = ["224,224,160"] if args.full and name == "encoder" else []
            rows += BENCHES[name](Path(folder), *more)
    table = pd.DataFrame(rows, columns=["what", "ours", "other", "ratio", "than", "note"])
    sys.stdout.write(f"{said}\n\n{table.astype(object).fillna('').to_markdown(index=False)}\n")
    over = [r["what"] for r in rows if r.get("is_over")]
    sys.stderr.write("".join(f"More memory than the other way: {what}\n" for what in over))
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
