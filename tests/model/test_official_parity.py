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
from merlin.training.official import (
    import_image,
    import_report_image,
    report_tokens,
)

OFFICIAL = Path(__file__).parents[2] / ".venv" / "official" / "merlin" / "models"
SHAPES = ((2, 1, 64, 64, 32), (1, 1, 50, 43, 21))
PAPER = ImageConfig()

pytestmark = pytest.mark.skipif(
    not all((OFFICIAL / name).is_file() for name in ("i3res.py", "inflate.py")),
    reason=f"the official modules are not in {OFFICIAL}; `make setup` fetches merlin-vlm 0.0.7",
)

SCRIPT = """
import json, sys
import torch
from safetensors.torch import save_file

official, here, out, blocks, shapes = sys.argv[1:]
sys.path.insert(0, here)
import official_modules
from resnet2d import ResNet2D, randomise_
models = official_modules.load(official)

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
torch.manual_seed(9)
five = models.i3res.I3ResNet(flat, class_nb=6, conv_class=True, FiveYearPred=True).eval()
save_file({k: v.contiguous() for k, v in five.state_dict().items()}, f"{out}/five.safetensors")
with torch.no_grad():
    for i, shape in enumerate(json.loads(shapes)):
        volume = torch.rand(shape, generator=generator)
        contrastive, logits = model(volume)
        model.ImageEmbedding = True
        arrays |= {f"volume{i}": volume, f"contrastive{i}": contrastive, f"logits{i}": logits,
                   f"embedding{i}": model(volume)[0]}
        model.ImageEmbedding = False
        model.return_skips = True
        skips = model(volume)[2]
        model.return_skips = False
        arrays |= {f"skip{i}-{k}": s for k, s in enumerate(skips)}
        # The report model flattens the last map, slices first.
        arrays[f"tokens{i}"] = skips[-1].permute(0, 1, 4, 2, 3).flatten(2).transpose(1, 2)
        arrays[f"five{i}"] = five(volume)
save_file({k: v.contiguous() for k, v in arrays.items()}, f"{out}/outputs.safetensors")
"""


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Folder with what the official code made: keys of the full network; weights and outputs."""
    out = tmp_path_factory.mktemp("official")
    command = [sys.executable, "-c", SCRIPT, str(OFFICIAL), str(Path(__file__).parent), str(out)]
    done = subprocess.run(
        [*command, json.dumps(DEPTHS[26]), json.dumps(SHAPES)],
        capture_output=True, text=True, timeout=900, check=False,
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


@pytest.mark.parametrize("i", range(len(SHAPES)), ids=["64×64×32", "odd sizes"])
def test_skips_five_year_and_report_tokens_equal_the_official_ones(official, encoder, i):
    expected = load_file(official / "outputs.safetensors")
    volume = expected[f"volume{i}"]
    with torch.no_grad():
        skips = encoder.i3_resnet.stages(volume)
        assert len(skips) == 6
        for k, skip in enumerate(skips):  # theirs are turned back to R, A, S
            found = skip.permute(0, 1, 3, 4, 2)
            np.testing.assert_allclose(found, expected[f"skip{i}-{k}"], rtol=1e-5, atol=1e-5)
        state = load_file(official / "five.safetensors")
        five = import_image(state, depth=26)
        logits = five.classifier(five.features(volume).mean((2, 3, 4), keepdim=True)).flatten(1)
        np.testing.assert_allclose(logits.sigmoid(), expected[f"five{i}"], rtol=1e-5, atol=1e-5)
        numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
        theirs = {
            f"vision_model.features.{numbers[k.split('.')[0]]}.{k.partition('.')[2]}": v
            for k, v in load_file(official / "weights.safetensors").items()
            if k.split(".")[0] in numbers
        }
        tokens = report_tokens(import_report_image(theirs, depth=26), volume)
        np.testing.assert_allclose(tokens, expected[f"tokens{i}"], rtol=1e-5, atol=1e-5)


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
