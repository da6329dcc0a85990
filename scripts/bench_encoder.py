"""One ResNet-152 in a process of its own: seconds and peak memory of a pass, for `bench.py`.

    python scripts/bench_encoder.py official|ours infer|train R,A,S FOLDER

The official module runs first and leaves its weights in FOLDER, so that both give the same outputs.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = ROOT / ".venv" / "official" / "merlin" / "models"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "model")]


def official_model(weights):
    """The authors' network with random weights, which are saved."""
    import official_modules
    from resnet2d import ResNet2D, randomise_

    flat = randomise_(ResNet2D((3, 8, 36, 3)), torch.Generator().manual_seed(7))
    torch.manual_seed(9)
    modules = official_modules.load(OFFICIAL)
    model = modules.i3res.I3ResNet(flat, class_nb=1692, conv_class=True).eval()
    torch.save(model.state_dict(), weights)
    return model


def our_model(weights, mode):
    """Ours with the saved weights; folded for inference, recomputing for training."""
    from merlin.model.cpu import prepare_cpu
    from merlin.model.i3d import ImageConfig, ImageEncoder
    from merlin.model.inference import folded

    model = ImageEncoder(ImageConfig(), checkpointing=mode == "train")
    model.i3_resnet.load_state_dict(torch.load(weights, weights_only=True))
    if mode == "infer":
        model = folded(model.eval())
        prepare_cpu(2)  # from here on freed memory is kept: faster, higher peak
    return model


def one_pass(model, volume, mode):
    """Forward, and backward where it trains."""
    if mode == "infer":
        with torch.inference_mode():
            return model(volume)
    found = model(volume)
    sum(f.square().mean() for f in found[:2]).backward()
    return found


def main(kind, mode, shape, folder):
    """Print seconds (the shorter of two) and peak GB as JSON; leave the outputs in the folder."""
    torch.set_num_threads(2)
    weights = Path(folder) / "net.pt"
    model = official_model(weights) if kind == "official" else our_model(weights, mode)
    model.train(mode == "train")
    shape = [int(n) for n in shape.split(",")]
    volume = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(8))
    for _ in range(2):
        one_pass(model, volume[..., :64, :64, :32], mode)
    model.zero_grad(set_to_none=True)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        found = one_pass(model, volume, mode)
        seconds.append(time.perf_counter() - began)
    found = [f.detach() for f in (found[::-1] if kind == "official" else found[1::-1])]
    np.savez(Path(folder) / f"{kind}.npz", *[x.flatten().numpy() for x in found])
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))  # of this program alone
    sys.stdout.write(json.dumps([min(seconds), int(peak.split()[1]) / 1e6]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
