"""The two optimisers of pretraining: AdamW for all, or Muon for kernels and AdamW for the rest.

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


def orthogonal(matrix: Tensor) -> Tensor:
    """Roughly U Vᵀ of the singular value decomposition U S Vᵀ, by Newton-Schulz iterations."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(N_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(torch.optim.AdamW):
    """AdamW, and Muon with Nesterov's momentum for groups of parameters that are `kernels`."""

    @torch.no_grad()
    def step(self, closure=None):
        """Move all parameters that have a gradient."""
        groups = self.param_groups
        for group in groups:
            for kernel in group["params"] if group["kernels"] else ():
                if kernel.grad is not None:
                    self._turn(kernel, group)
        self.param_groups = [g for g in groups if not g["kernels"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _turn(self, kernel, group):
        state = self.state[kernel]
        if not state:  # `step`, as all states of AdamW have
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(kernel))
        state["step"] += 1
        state["momentum"].lerp_(kernel.grad, 1 - group["momentum"])
        ahead = kernel.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
        rate = group["lr"] * max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
        kernel.mul_(1 - group["lr"] * group["weight_decay"])
        kernel.sub_(orthogonal(ahead).view_as(kernel), alpha=rate)


def is_kernel(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is one of Muon's: a kernel of the image network that mixes channels."""
    is_head = ".classifier" in name or ".contrastive_head" in name
    mixes = parameter.ndim == 5 and parameter.shape[1] > 1  # depthwise kernels do not
    return ".i3_resnet." in name and mixes and not is_head


def make_optimizer(model: TwoTowers, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser of a configuration over all that is trained.

    Weight decay is on matrices and kernels alone, without norms, biases and temperatures. Each group's
    `full_rate` is what the schedule scales.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    kernels = [p for n, p in named if config.optimizer == "muon" and is_kernel(n, p)]
    taken = {id(p) for p in kernels}
    rest = [p for _, p in named if id(p) not in taken]
    rate, decay = config.learning_rate, config.weight_decay
    groups: list[dict] = [
        dict(params=[p for p in rest if p.ndim > 1], full_rate=rate, weight_decay=decay),
        dict(params=[p for p in rest if p.ndim <= 1], full_rate=rate, weight_decay=0.0),
    ]
    betas = (config.betas[0], config.betas[1])
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas)
    groups = [g | {"kernels": False} for g in groups]
    muon = dict(full_rate=config.muon_learning_rate, weight_decay=config.muon_weight_decay)
    groups.append(dict(params=kernels, kernels=True, momentum=0.95, **muon))
    return Muon(groups, lr=rate, betas=betas)
