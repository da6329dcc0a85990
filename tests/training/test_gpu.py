"""What only a GPU can show; run where one is by `make bench`, or `pytest -m gpu`."""

import pytest
import torch

from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import parallel
from merlin.training.config import TrainingConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
SHAPE = (160, 160, 112)


def towers(**more):
    torch.manual_seed(0)
    image = ImageConfig(depth=26, width=32, n_phecodes=8, in_channels=1)
    text = TextConfig(kind="small", hidden_size=64, n_layers=1, max_length=64)
    return TwoTowers(TowersConfig(image, text, SHAPE), **more).cuda().train()


def one_step(model, precision, chunk=0, n=4):
    """Embeddings of a batch, and the gradient of the first kernel."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    volume = torch.rand(n, 1, *SHAPE, generator=torch.Generator().manual_seed(1)).cuda()
    with torch.autocast("cuda", dtype, enabled=precision != "fp32"):
        image, logits, finish = parallel.embed_volumes(model, volume, chunk)
    (1024 * (image.float()[:, :4].sum() + logits.float().square().mean())).backward()
    finish()
    gradient = next(p.grad for p in model.encode_image.parameters() if p.grad is not None)
    return image.detach().float(), gradient.float()


@pytest.mark.parametrize(("precision", "apart"), [("fp16", 0.02), ("bf16", 0.05)])
def test_half_precision_gives_the_embeddings_and_gradients_of_fp32(precision, apart):
    image, gradient = one_step(towers(), "fp32")
    found, its_gradient = one_step(towers(), precision)
    assert torch.nn.functional.cosine_similarity(image, found).min() > 1 - apart
    one, other = gradient.flatten(), its_gradient.flatten()
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 1 - 4 * apart


@pytest.mark.parametrize(("chunk", "checkpointing"), [(0, False), (0, True), (2, False)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_estimated_memory_is_near_what_the_device_allocates(precision, chunk, checkpointing):
    """Within 25 %: convolutions take workspaces that nobody can foresee."""
    model = towers(checkpointing=checkpointing)
    config = TrainingConfig(n_steps=1, batch_size=8, learning_rate=1e-3, precision=precision,
                            chunk=chunk, supervision="ehr")  # fmt: skip
    said = parallel.estimate_step(model, config, SHAPE)["step"]
    one_step(model, precision, chunk, n=8)
    model.zero_grad(set_to_none=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    one_step(model, precision, chunk, n=8)
    taken = torch.cuda.max_memory_allocated() - before
    assert abs(said / taken - 1) < 0.25, (said, taken)
