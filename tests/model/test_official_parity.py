"""The image encoder loads the official network's weights strictly and computes the same.

The official files share our import name, so they run in a process of their own, loaded by path
with bare stub packages. `make setup` puts them into `.venv/official`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from resnet2d import ResNet2D
from safetensors.torch import load_file

from merlin.model.i3d import DEPTHS, I3ResNet, ImageConfig, ImageEncoder, inflate_state_dict

OFFICIAL = Path(__file__).parents[2] / ".venv" / "official" / "merlin" / "models"
SHAPES = ((2, 1, 64, 64, 32), (1, 1, 50, 43, 21))
PAPER = ImageConfig()

pytestmark = pytest.mark.skipif(
    not all((OFFICIAL / name).is_file() for name in ("i3res.py", "inflate.py")),
    reason=f"the official modules are not in {OFFICIAL}; `make setup` fetches merlin-vlm 0.0.7",
)

SCRIPT = """
import importlib.util, json, sys, types
import torch
from safetensors.torch import save_file

official, here, out, blocks, shapes = sys.argv[1:]
sys.modules["merlin"] = types.ModuleType("merlin")
models = sys.modules["merlin.models"] = types.ModuleType("merlin.models")
for name in ("inflate", "i3res"):
    spec = importlib.util.spec_from_file_location(f"merlin.models.{name}", f"{official}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    setattr(models, name, module)
sys.path.insert(0, here)
from resnet2d import ResNet2D, randomise_

def build(n_blocks, n_classes, **flags):
    return models.i3res.I3ResNet(ResNet2D(n_blocks), class_nb=n_classes, conv_class=True, **flags)

with torch.device("meta"):
    full = build((3, 8, 36, 3), 1692)
listing = {k: [list(v.shape), str(v.dtype)] for k, v in full.state_dict().items()}
json.dump(listing, open(f"{out}/keys.json", "w"))

torch.manual_seed(7)
generator = torch.Generator().manual_seed(7)
flat = randomise_(ResNet2D(json.loads(blocks)), generator)
two_d = {k: v.clone() for k, v in flat.state_dict().items() if not k.startswith("fc.")}
model = models.i3res.I3ResNet(flat, class_nb=11, conv_class=True).eval()
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, f"{out}/weights.safetensors")
save_file(two_d, f"{out}/flat.safetensors")
arrays = {}
with torch.no_grad():
    for i, shape in enumerate(json.loads(shapes)):
        volume = torch.rand(shape, generator=generator)
        contrastive, logits = model(volume)
        model.ImageEmbedding = True
        arrays |= {f"volume{i}": volume, f"contrastive{i}": contrastive, f"logits{i}": logits,
                   f"embedding{i}": model(volume)[0]}
        model.ImageEmbedding = False
save_file({k: v.contiguous() for k, v in arrays.items()}, f"{out}/outputs.safetensors")
"""


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Folder with what the official code made: keys of the full network; weights and outputs."""
    out = tmp_path_factory.mktemp("official")
    command = [sys.executable, "-c", SCRIPT, str(OFFICIAL), str(Path(__file__).parent), str(out)]
    done = subprocess.run(
        [*command, json.dumps(DEPTHS[26]), json.dumps(SHAPES)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def encoder(official):
    """Our encoder with the official weights, loaded strictly."""
    model = ImageEncoder(ImageConfig(depth=26, n_phecodes=11))
    model.i3_resnet.load_state_dict(load_file(official / "weights.safetensors"), strict=True)
    return model.eval()


@pytest.mark.parametrize("i", range(len(SHAPES)), ids=["64×64×32", "odd sizes"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_outputs_equal_the_official_network(official, encoder, i, checkpointing):
    expected = load_file(official / "outputs.safetensors")
    encoder.i3_resnet.checkpointing = checkpointing
    with torch.no_grad():
        contrastive, logits, embedding = encoder(expected[f"volume{i}"])
    assert embedding.shape[1] == 2048
    for name, found in dict(contrastive=contrastive, logits=logits, embedding=embedding).items():
        reference = expected[f"{name}{i}"]
        assert reference.std() > 0.01, "a reference that hardly varies compares nothing"
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-5, err_msg=name)


def test_inflated_weights_equal_the_officially_inflated_ones(official):
    model = I3ResNet(ImageConfig(depth=26, n_phecodes=11))
    found = inflate_state_dict(load_file(official / "flat.safetensors"), model)
    for key, value in load_file(official / "weights.safetensors").items():
        if not key.startswith(("classifier", "contrastive_head")):
            assert torch.equal(found[key], value), key


def test_full_network_has_the_official_tensors_key_for_key(official):
    with torch.device("meta"):
        model = I3ResNet(PAPER)
    found = {k: [list(v.shape), str(v.dtype)] for k, v in model.state_dict().items()}
    assert found == json.loads((official / "keys.json").read_text())


def test_two_dimensional_stand_in_has_torchvisions_parameter_count():
    """torchvision's ResNet-50 has 25,557,032 parameters with 1,000 classes; ours ends in ten."""
    n = sum(p.numel() for p in ResNet2D((3, 4, 6, 3)).parameters())
    assert n == 25_557_032 - 990 * 2049
