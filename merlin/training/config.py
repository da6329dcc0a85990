"""How to train: the settings of a pretraining, and what follows from them and the step alone.

Hyper-parameters of the paper and where they stand are in `PAPER`.
"""

from dataclasses import dataclass

import numpy as np
import torch

# Values with a source (paper_facts §4); what the sources leave open is None.
PAPER = dict(
    learning_rate=1e-5,
    betas=(0.9, 0.999),
    n_epochs=300,
    batch_size=18,
    precision="fp16",
    weight_decay=None,
    warmup_steps=None,
    ehr_weight=None,
)

# How often to save and to look, and how much at: no part of what makes a checkpoint. Chunks are: batch
# norms see a chunk, and dropout is drawn in another order.
CHANGES_NO_STEP = ("save_every", "evaluate_every", "n_validation")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Defaults are ours where `PAPER` has none."""

    n_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    optimizer: str = "adamw"  # or muon (`optimizers`): matrices and kernels; AdamW for the rest
    muon_learning_rate: float = 0.05
    muon_weight_decay: float = 0.0
    warmup_steps: int = 40
    clip_norm: float = 1.0
    strategy: str = "multi-task"
    supervision: str = "both"
    report_splitting: bool = True
    sections_per_step: int = 1  # the paper's steps see one section; 0: whole findings at every step
    sentence_weight: float = 0.0  # of sentences beside reports, with report_splitting; paper: none
    # Of studies in a section's batch whose text there is normal; None: as they come. Tried by an
    # independent reproduction (arXiv 2604.13561), which lost by it.
    normal_share: float | None = None
    max_logit_scale: float = 4.6052  # ln 100, CLIP's clamp of the temperature
    ehr_weight: float = 1.0
    stage_one_share: float = 0.4  # of the steps, with strategy="staged"
    stage_two_ehr_weight: float = 0.1  # factor on ehr_weight
    shift_voxels: int = 0
    noise: float = 0.0
    gain: float = 0.0
    precision: str = "fp32"
    chunk: int = 0  # volumes encoded at a time (`parallel`); 0: the whole batch
    text_chunk: int = 0  # texts likewise; dropout is drawn in another order
    save_every: int = 200
    evaluate_every: int = 200
    # Studies of validation, at most, that are looked at, their reports too (`validation`); 0: all, for
    # their codes alone.
    n_validation: int = 0

    def __post_init__(self):
        for name, allowed in (
            ("strategy", ("multi-task", "staged")),
            ("supervision", ("both", "ehr", "reports")),
            ("precision", ("fp32", "bf16", "fp16")),
            ("optimizer", ("adamw", "muon")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        if self.normal_share is not None and not 0 <= self.normal_share <= 1:
            raise ValueError(f"normal_share must be in [0, 1] or None; got {self.normal_share}")
        if self.normal_share is not None and not self.sections_per_step:
            raise ValueError(
                "normal_share is of a section's batch: set sections_per_step to 1 or more"
            )

    @property
    def splits_sentences(self) -> bool:
        """Whether sentences are contrasted beside reports."""
        return self.report_splitting and self.sentence_weight > 0

    def autocast(self, kind: str) -> torch.autocast:
        """Half precision where it is asked for, on a kind of device as `cuda`."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(kind, dtype, enabled=self.precision != "fp32")


def warm_cosine(rate: float, step: int, n_steps: int, warmup_steps: int) -> float:
    """Linear warm-up to a learning rate, then cosine to zero."""
    warm = min((step + 1) / max(warmup_steps, 1), 1.0)
    return float(rate * warm * 0.5 * (1 + np.cos(np.pi * step / n_steps)))


def schedule(step: int, config: TrainingConfig) -> float:
    """Factor on the learning rates at a step of pretraining."""
    return warm_cosine(1.0, step, config.n_steps, config.warmup_steps)


def loss_weights(step: int, config: TrainingConfig) -> tuple[float, float]:
    """Weights of the report and the code loss at a step."""
    if config.supervision == "ehr":
        return 0.0, config.ehr_weight
    if config.supervision == "reports":
        return 1.0, 0.0
    if config.strategy == "staged":
        if step < config.stage_one_share * config.n_steps:
            return 0.0, config.ehr_weight
        return 1.0, config.ehr_weight * config.stage_two_ehr_weight
    return 1.0, config.ehr_weight


def drawn_sections(
    step: int, config: TrainingConfig, n_sections: int, rng: np.random.Generator
) -> np.ndarray | None:
    """Sections that a step contrasts, on every other step with report splitting; else None."""
    if not (config.report_splitting and config.sections_per_step) or step % 2 == 0:
        return None
    return rng.choice(n_sections, min(config.sections_per_step, n_sections), replace=False)
