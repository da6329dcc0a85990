"""The two optimisers of pretraining: AdamW for all, or Muon for matrices and AdamW for the rest.

Muon (Jordan et al., https://kellerjordan.github.io/posts/muon/) moves a matrix by the orthogonal
matrix nearest to its momentum, so that every direction moves as far. A kernel is a matrix here, output
channels by all else. torch has a Muon as well, for parameters that are matrices already and in
bfloat16, which a processor without it is slow at; a test holds this one to it.
"""

import torch
from torch import Tensor, nn

from merlin.model.two_towers import TwoTowers
from merlin.training.config import TrainingConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values end between 0.7 and 1.2
N_ITERATIONS = 5
LARGE = 256  # rows and columns from which a turn costs as much as a batch of texts
KEPT = 4  # steps for which such a turn is kept: momentum lasts for twenty


def orthogonal(matrix: Tensor) -> Tensor:
    """Roughly U Vᵀ of the singular value decomposition U S Vᵀ, by Newton-Schulz iterations.

    Each multiplies X by a polynomial of X Xᵀ. These commute, so for a wide X they are multiplied among
    themselves, which are small squares, and X comes last: up to three times as fast as in turn.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    is_wide = x.shape[1] > 1.5 * x.shape[0]
    square, product = x @ x.T, x
    if is_wide:
        product = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for i in range(N_ITERATIONS):
        factor = torch.addmm(square, square, square, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        if i + 1 < N_ITERATIONS:
            square = factor @ square @ factor if is_wide else product @ product.T
    x = product @ x if is_wide else product
    return x.T if is_tall else x


class Muon(torch.optim.AdamW):
    """AdamW, and Muon with Nesterov's momentum for groups of parameters that are `matrices`."""

    @torch.no_grad()
    def step(self, closure=None):
        """Move all parameters that have a gradient."""
        groups = self.param_groups
        for group in groups:
            for kernel in group["params"] if group["matrices"] else ():
                if kernel.grad is not None:
                    self._turn(kernel, group)
        self.param_groups = [g for g in groups if not g["matrices"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _turn(self, kernel, group):
        state = self.state[kernel]
        if not state:  # `step`, as all states of AdamW have
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(kernel))
        state["momentum"].lerp_(kernel.grad, 1 - group["momentum"])
        is_large = min(len(kernel), kernel[0].numel()) >= LARGE
        if int(state["step"]) % (KEPT if is_large else 1) == 0:
            ahead = kernel.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
            state["turn"] = orthogonal(ahead).view_as(kernel)
        state["step"] += 1
        rate = group["lr"] * max(1.0, len(kernel) / kernel[0].numel()) ** 0.5
        kernel.mul_(1 - group["lr"] * group["weight_decay"])
        kernel.sub_(state["turn"], alpha=rate)


def is_muons(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is one of Muon's: a matrix or kernel that mixes features.

    Not depthwise kernels, tables of vectors, and the phecode head, whose rows are labels.
    """
    mixes = parameter.ndim > 1 and parameter.shape[1] > 1
    return mixes and not any(word in name for word in ("classifier", "embeddings", "_table"))


def make_optimizer(model: TwoTowers, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser of a configuration over all that is trained.

    Weight decay is on matrices and kernels alone, without norms, biases and temperatures. Each group's
    `full_rate` is what the schedule scales.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if config.optimizer == "muon" and is_muons(n, p)]
    taken = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in taken]
    rate, decay = config.learning_rate, config.weight_decay
    groups: list[dict] = [
        dict(params=[p for p in rest if p.ndim > 1], full_rate=rate, weight_decay=decay),
        dict(params=[p for p in rest if p.ndim <= 1], full_rate=rate, weight_decay=0.0),
    ]
    betas = (config.betas[0], config.betas[1])
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas)
    groups = [g | {"matrices": False} for g in groups]
    muon = dict(full_rate=config.muon_learning_rate, weight_decay=config.muon_weight_decay)
    groups.append(dict(params=matrices, matrices=True, momentum=0.95, **muon))
    return Muon(groups, lr=rate, betas=betas)
