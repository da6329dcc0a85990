"""One arm of pretraining from its settings: data, network, training, what is kept.

`02_pretraining` calls these in order. An arm of the sweep is trained once a seed, others once.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from merlin import run
from merlin.data import manifest
from merlin.data.cohort_codes import Coding, read_coding
from merlin.data.phecodes import TABLES, read_phenotypes, unnamed_phenotypes
from merlin.data.preprocess import Grid
from merlin.model.cpu import prepare_cpu
from merlin.model.i3d import ImageConfig, inflate_state_dict
from merlin.model.sentences import LIMIT, SENTENCE_MODEL
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.model.volumes import THREE_WINDOWS
from merlin.training import data, parallel
from merlin.training.checkpoint import announce, keep_aside, load_weights, save_weights
from merlin.training.config import TrainingConfig
from merlin.training.loop import fit
from merlin.training.texts import TextCache
from merlin.training.validation import score

BEST = "weights_best.safetensors"  # beside weights.safetensors, which is of the last step
OF_THE_TOWER = (
    "network", "depth", "width", "block", "stem", "stem_width", "stem_depth_stride", "flat",
    "n_stages", "pool", "grid_cells",
)  # fmt: skip


# What the loop uses and no step follows from: files, words, what is said, counted and judged.
NO_STEP = (
    "merlin.compiled", "merlin.files", "merlin.words", "merlin.statistics.metrics", "merlin.training.checkpoint",
    "merlin.training.cost", "merlin.training.validation",
)  # fmt: skip


def code_of_steps() -> str:
    """Fingerprint of the code that decides a step of training."""
    return run.code_hash("merlin.training.loop", without=NO_STEP)


@dataclass(frozen=True)
class Cohort:
    """The internal studies as pretraining sees them.

    Attributes
    ----------
    source : path
        The manifest.
    table : DataFrame
        Its rows of the internal site.
    everyone : Studies
        The same studies, in the same order.
    phenotypes : DataFrame
        Phecodes of the head, in its order.
    coding : Coding
    grid : Grid
        Of the model's input.
    train_fraction : float
    drawn : callable, optional
        Seed → studies that training sees in the place of the cohort's own.
    drawn_from : str
        Fingerprint of what those are drawn from.
    """

    source: Path
    table: pd.DataFrame
    everyone: data.Studies
    phenotypes: pd.DataFrame
    coding: Coding
    grid: Grid
    train_fraction: float
    drawn: Callable[[int], data.Studies] | None = None
    drawn_from: str = ""

    def train(self, seed: int) -> data.Studies:
        """Training studies; smaller fractions of the patients lie inside larger ones."""
        if self.drawn:
            return self.drawn(seed)
        inside = np.flatnonzero(self.table["split"] == "train")
        patients = self.table["patient_id"].iloc[inside]
        kept = manifest.nested_subset(patients, self.train_fraction, seed=seed)
        return self.everyone.subset(inside[kept])

    def val(self) -> data.Studies:
        """Validation studies."""
        return self.everyone.subset(np.flatnonzero(self.table["split"] == "val"))

    def test(self) -> pd.DataFrame:
        """Rows of the test studies."""
        return self.table[self.table["split"] == "test"].reset_index(drop=True)

    def share_positive(self, studies: data.Studies) -> float:
        """Of known phecode labels."""
        known = studies.phecodes[np.isfinite(studies.phecodes)]
        return float(known.sum() / max(known.size, 1))


def read_cohort(settings: SimpleNamespace) -> Cohort:
    """Read manifest and codes of a profile's cohort.

    Raises
    ------
    ValueError
        If codes of the user's own lack their map or list of phecodes, or an arm that learns from codes
        has none.
    """
    base = run.folder(settings.profile)
    source = run.upstream(base / "cohort" / "manifest.csv", "01_cohort")
    studies = manifest.at_home(manifest.load_manifest(source))
    phenotypes = read_phenotypes(settings.phecodes or TABLES / "phantom_phecodes.csv")
    how = dict(tier=settings.tier, code_map=settings.code_map, rollup=settings.rollup)
    coding = read_coding(base / "cohort", **how)
    if settings.tier == "full" and not settings.phecodes:  # a head of the paper's size, untrained
        phenotypes = unnamed_phenotypes()
        if settings.supervision == "reports":  # nothing learns from them
            coding = coding.without_codes()
    own = settings.tier == "full" and len(coding.codes)
    if own and not (settings.code_map and settings.phecodes):
        raise ValueError(
            "codes of your own need code_map (to phecodes) and phecodes (the head's, in order)"
        )
    if coding.codes.empty and settings.supervision != "reports":
        raise ValueError("no diagnosis codes were given: train with supervision = 'reports'")
    grid = Grid(tuple(settings.spacing_mm), tuple(settings.grid_shape), (-1000.0, 1000.0))
    everyone = data.studies_from_manifest(
        studies, coding.codes, coding.code_map, phenotypes["phecode"], grid, base / "cache",
        section_headings=settings.section_headings, **coding.rules,
    )  # fmt: skip
    return Cohort(source, studies, everyone, phenotypes, coding, grid, settings.train_fraction)


def image_config(settings: SimpleNamespace, n_phecodes: int) -> ImageConfig:
    """The image tower of an arm."""
    windows = THREE_WINDOWS if settings.windows == "three" else ()
    chosen = {n: getattr(settings, n) for n in OF_THE_TOWER}
    return ImageConfig(
        **chosen, in_channels=len(windows) or 3, windows=windows, n_phecodes=n_phecodes
    )


def departures(image: ImageConfig) -> pd.DataFrame:
    """Where an image tower differs from the paper's: `here, paper`, by setting."""
    table = pd.DataFrame({"here": asdict(image), "paper": asdict(ImageConfig())})
    return table[table["here"].astype(str) != table["paper"].astype(str)]


@dataclass(frozen=True)
class Arm:
    """What is trained, and how.

    Attributes
    ----------
    settings : SimpleNamespace
    cohort : Cohort
    towers : TowersConfig
    training : TrainingConfig
    device : str
        Of this process, where torchrun started several.
    kernels : dict of str to Tensor
        2D ones that are inflated at the start; empty: random.
    kernels_file : path or str
    """

    settings: SimpleNamespace
    cohort: Cohort
    towers: TowersConfig
    training: TrainingConfig
    device: str
    kernels: dict[str, torch.Tensor]
    kernels_file: str | Path

    def model(self, seed: int) -> TwoTowers:
        """A network that has learnt nothing yet."""
        torch.manual_seed(seed)
        model = TwoTowers(self.towers, checkpointing=self.settings.checkpointing)
        if self.kernels:
            network = model.encode_image.i3_resnet
            network.load_state_dict(inflate_state_dict(self.kernels, network))
        if self.settings.compile:
            model.encode_image.compile()
        return model.to(self.device)

    def fingerprint(self) -> str:
        """Of data and code: a checkpoint of another one is not resumed."""
        start = run.file_hash(self.kernels_file) if self.kernels_file else ""
        labels = run.array_hash(self.cohort.everyone.phecodes)  # of codes, map and list of phecodes
        code = code_of_steps()
        parts = (
            self.cohort.train_fraction,
            self.cohort.drawn_from,
            start,
            run.cohort_hash(self.cohort.source),
            labels,
            code,
        )
        return run.fingerprint(self.towers.to_dict(), *parts)

    def cost(self, model: TwoTowers) -> str:
        """Memory and time that training will take on this machine, in words."""
        n_share = self.training.batch_size // parallel.world()[1]
        what = (model, self.training, self.cohort.grid.shape)
        with self._advice():
            need = parallel.estimate_step(*what, n_share=n_share)["total"] / 1e9
            minutes = parallel.estimate_seconds(*what, n_share=n_share) * self.training.n_steps / 60
        return (
            f"weights, gradients and activations: about {need:.1f} GB at once\n"
            "(up to twice that on a CPU with small volumes, whose freed memory is kept)\n"
            f"{self.training.n_steps:,} steps: about {minutes:.1f} min here, not compiled\n"
            "for images alone; texts and reading come on top"
        )

    def _advice(self):
        shape, again = self.cohort.grid.shape, self.settings.checkpointing
        return parallel.memory_advice(self.training, shape, checkpointing=again)


@dataclass(frozen=True)
class Trained:
    """One finished training: its network, studies, log (a row a step) and texts."""

    model: TwoTowers
    train: data.Studies
    log: list[dict]
    texts: TextCache


def prepare(settings: SimpleNamespace, cohort: Cohort) -> Arm:
    """Network and training of an arm, before anything is learnt."""
    base = run.folder(settings.profile)
    prepare_cpu(settings.n_threads, n_voxels=int(np.prod(cohort.grid.shape)))
    text = TextConfig(
        kind=settings.text,
        folder=settings.text_folder,
        cleaning=settings.text_cleaning,
        max_length=settings.max_length,
        is_frozen=settings.text_frozen,
        hidden_size=settings.text_hidden,
    )
    device = parallel.start()
    image = image_config(settings, len(cohort.phenotypes))
    kernels: dict[str, torch.Tensor] = {}
    file: str | Path = ""
    if settings.init_from:
        path = base / "pretraining" / settings.init_from / "weights.safetensors"
        file = run.upstream(path, "02_pretraining")
        kernels = load_weights(file)[0].encode_image.i3_resnet.state_dict()
    elif settings.weights_2d:
        file = settings.weights_2d
        kernels = load_file(file)
    named = [f.name for f in fields(TrainingConfig) if hasattr(settings, f.name)]
    training = TrainingConfig(**{n: getattr(settings, n) for n in named})
    if not 0 <= settings.logit_scale <= settings.max_logit_scale:
        limits = f"0 to max_logit_scale, {settings.max_logit_scale}"
        raise ValueError(f"logit_scale {settings.logit_scale}: expected {limits} (a logarithm)")
    towers = TowersConfig(image, text, cohort.grid.shape, settings.logit_scale)
    return Arm(settings, cohort, towers, training, device, kernels, file)


def train(arm: Arm) -> dict[str, Trained]:
    """Train an arm with each of its seeds, resuming where a killed run was; by name of the run.

    In the full tier, where a run takes days, it first says what it will take.
    """
    if arm.settings.tier == "full":
        first = arm.model(next(iter(arm.settings.trainings.values())))
        sys.stdout.write(arm.cost(first) + "\n")
    base, mark = run.folder(arm.settings.profile), arm.fingerprint()
    found = {}
    for name, seed in arm.settings.trainings.items():
        model, studies = arm.model(seed), arm.cohort.train(seed)
        checkpoint = base / "pretraining" / name / "checkpoint.pt"
        kept = dict(
            checkpoint=checkpoint, fingerprint=mark, cache=base / "cache", device=arm.device
        )
        kept |= dict(keep_best=_keeping_best(arm, name, studies))
        with arm._advice():
            log, texts = fit(model, studies, arm.cohort.val(), arm.training, seed=seed, **kept)
        found[name] = Trained(model, studies, log, texts)
    return found


def save(arm: Arm, trained: dict[str, Trained]) -> dict[str, Path]:
    """Write log and weights of every run, the latter with where they came from.

    Returns
    -------
    dict of str to Path
        Logs, by run.
    """
    settings = arm.settings
    out, logs = run.folder(settings.profile) / "pretraining", {}
    for name, t in trained.items():
        logs[name] = out / name / "log.csv"
        if is_first():
            run.write_csv(logs[name], pd.DataFrame(t.log))
        facts = _facts(arm, name, t.train) | {"truncated_texts": t.texts.n_truncated}
        facts |= {"lost_tokens": t.texts.n_lost_tokens}
        if is_first():
            save_weights(out / name / "weights.safetensors", t.model, facts)
        limit = settings.max_length if t.model.reads_tokens else LIMIT
        what = "texts" if t.model.reads_tokens else "sentences"
        cut = f"{t.texts.n_truncated} {what} were cut at {limit} tokens"
        sys.stdout.write(f"{name}: {cut}, losing {t.texts.n_lost_tokens} tokens\n")
        sys.stdout.write(_told_best(out / name / BEST, t.log))
    parallel.everyones(None)  # no process goes on before the files are there
    return logs


def _facts(arm, name, studies):
    """What weights say of their training."""
    settings, cohort = arm.settings, arm.cohort
    n = {"patients": len(set(studies.patient_ids)), "studies": len(studies)}
    facts = run.provenance(settings, [cohort.source], n=n) | {"seed": settings.trainings[name]}
    facts |= {"grid": asdict(cohort.grid), "phecodes": cohort.phenotypes["phecode"].tolist()}
    facts |= {"model": name}
    return facts | (
        {"sentence_model": SENTENCE_MODEL} if arm.towers.text.kind == "sentences" else {}
    )


def _keeping_best(arm, name, studies):
    """What keeps the weights of the best validation beside the last step's; in the full tier alone."""
    path = run.folder(arm.settings.profile) / "pretraining" / name / BEST
    if arm.settings.tier != "full":
        return None

    def keep(model: TwoTowers, log: list[dict]) -> None:
        if not is_first():
            return
        if path.exists() and sum(score(row) is not None for row in log) == 1:
            announce(
                path, f"{BEST} of an earlier training is kept as {keep_aside(path, 'earlier')}"
            )
        chosen = {k: v for k, v in log[-1].items() if k == "step" or k.startswith("val_")}
        save_weights(path, model, _facts(arm, name, studies) | {"best_of_validation": chosen})

    return keep


def _told_best(path, log):
    """Which step each of the two files of weights is of; empty where there is one."""
    scores = [-math.inf if (s := score(row)) is None else s for row in log]
    if not path.exists() or max(scores) == -math.inf:
        return ""
    best = int(np.argmax(scores))
    return (
        f"weights.safetensors: after the last step, {len(log):,}; {path.name}: after step {best + 1:,}, "
        "the best of validation\n"
    )


def is_first() -> bool:
    """Whether this process writes: one of several, each with the same weights."""
    return parallel.world()[0] == 0


def curves(trained: dict[str, Trained]) -> pd.DataFrame:
    """Every fifth step of each run, losses as the mean of 20 steps, and all validations."""
    logs = [pd.DataFrame(t.log).assign(arm=name) for name, t in trained.items()]
    history = pd.concat(logs, ignore_index=True)
    losses = ["report_loss", "sentence_loss", "ehr_loss"]
    by_arm = history.groupby("arm", sort=False)[losses]
    smooth = by_arm.rolling(20, min_periods=1).mean().reset_index(level=0, drop=True)
    matched = [c for c in ("val_contrastive_loss", "val_recall_1", "val_studies") if c in history]
    columns = ["arm", "step", *losses, "val_phecode_auroc", *matched, "logit_scale"]
    shown = history.assign(**smooth)[columns]
    seen = shown[["val_phecode_auroc", *matched]].notna().any(axis=1)
    return shown[(shown["step"] % 5 == 0) | seen].round(5)


def judged_by(trained: dict[str, Trained]) -> str:
    """What the curves show beside losses, for a caption."""
    words = "validation AUROC of the phecode head"
    n = [row["val_studies"] for t in trained.values() for row in t.log if "val_studies" in row]
    if not n:
        return words
    matched = f"on {n[0]:,} validation studies the share whose own report is nearest"
    is_coded = any(
        not math.isnan(r.get("val_phecode_auroc", math.nan))
        for t in trained.values()
        for r in t.log
    )
    return f"{words}, {matched}" if is_coded else matched


def reading(settings: SimpleNamespace, trained: dict[str, Trained]) -> str:
    """What the first run's log says, in a sentence."""
    name, first = next(iter(trained.items()))
    log = pd.DataFrame(first.log)
    before, after = log["report_loss"][:20].mean(), log["report_loss"][-50:].mean()
    fell = f"the report loss went from {before:.2f} to {after:.2f} nats"
    if settings.supervision == "ehr":
        fell = "no report was read"
    auroc = log["val_phecode_auroc"].dropna()
    ranks = (
        f"ends at a mean validation AUROC of {auroc.iloc[-1]:.3f}" if len(auroc) else "had no codes"
    )
    return (
        f"{name}: over {len(log):,} steps {fell} (ln {settings.batch_size} = "
        f"{np.log(settings.batch_size):.2f}); the phecode head {ranks}. {_matched(log)}A step took "
        f"{log['seconds'].median():.2f} s."
    )


def _matched(log):
    """What validation on reports says at the end, as a sentence; empty where there was none."""
    if "val_contrastive_loss" not in log:
        return ""
    last = log.dropna(subset=["val_contrastive_loss"]).iloc[-1]
    n = int(last["val_studies"])
    return (
        f"On {n:,} validation studies the contrastive loss ends at {last['val_contrastive_loss']:.2f} nats, and "
        f"{last['val_recall_1']:.1%} of volumes find their own report first (blind: {1 / n:.1%}). "
    )
