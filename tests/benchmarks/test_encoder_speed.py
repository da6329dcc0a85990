"""ResNet-152 for inference: ours beside the official module, in one run, at equal outputs.

At a quarter of the paper's voxels here; `python tests/benchmarks/test_encoder_speed.py 224 224 160`
measures the full size, each network in a process of its own for its memory.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

OFFICIAL = Path(__file__).parents[2] / ".venv" / "official" / "merlin" / "models"
MODEL_TESTS = Path(__file__).parents[1] / "model"
RUN = """
import importlib.util, json, resource, sys, time, types
import numpy as np, torch
kind, official, here, shape, out = sys.argv[1:]
shape = json.loads(shape)
sys.path.insert(0, here)
from resnet2d import ResNet2D, randomise_
torch.set_num_threads(2)
flat = randomise_(ResNet2D((3, 8, 36, 3)), torch.Generator().manual_seed(7))
volume = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(8))
if kind == "official":
    sys.modules["merlin"] = types.ModuleType("merlin")
    models = sys.modules["merlin.models"] = types.ModuleType("merlin.models")
    for name in ("inflate", "i3res"):
        spec = importlib.util.spec_from_file_location(f"merlin.models.{name}", f"{official}/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(models, name, module)
    torch.manual_seed(9)
    model = models.i3res.I3ResNet(flat, class_nb=1692, conv_class=True).eval()
    torch.save(model.state_dict(), out + ".pt")
    run = lambda: model(volume)[::-1]
else:
    from merlin.model.i3d import ImageConfig, ImageEncoder
    from merlin.model.inference import folded
    model = ImageEncoder(ImageConfig())
    model.i3_resnet.load_state_dict(torch.load(out + ".pt", weights_only=True))
    model = folded(model.eval())
    del flat
    run = lambda: model(volume)[1::-1]
with torch.inference_mode():
    small = volume[..., :64, :64, :32]
    (model(small), model(small))
    began = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - began
np.savez(out + "-" + kind + ".npz", *[x.flatten().numpy() for x in found])
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))
"""


def measure(shape, folder):
    """Seconds and peak GB of each network, and the largest difference of their outputs."""
    found = {}
    for kind in ("official", "ours"):
        command = [
            sys.executable,
            "-c",
            RUN,
            kind,
            str(OFFICIAL),
            str(MODEL_TESTS),
            json.dumps(shape),
        ]
        done = subprocess.run(
            [*command, str(folder / "net")],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    a, b = (np.load(folder / f"net-{kind}.npz") for kind in ("official", "ours"))
    gap = max(float(np.abs(a[k] - b[k]).max()) for k in a.files)
    return found, gap


@pytest.mark.slow
@pytest.mark.skipif(
    not (OFFICIAL / "i3res.py").is_file(), reason="`make setup` fetches the official modules"
)
def test_folded_encoder_is_faster_than_the_official_one_at_equal_outputs(tmp_path):
    found, gap = measure([112, 112, 160], tmp_path)
    assert gap < 1e-5
    assert found["official"][0] > 1.5 * found["ours"][0], found
    assert found["ours"][1] < 1.05 * found["official"][1], found


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found, gap = measure([int(n) for n in sys.argv[1:4]], Path(folder))
    for kind, (seconds, memory) in found.items():
        sys.stdout.write(f"{kind}: {seconds:.1f} s, peak {memory:.2f} GB\n")
    ratio = found["official"][0] / found["ours"][0]
    sys.stdout.write(f"{ratio:.2f} x as fast, largest difference {gap:.1e}\n")
