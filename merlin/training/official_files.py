"""The authors' files: fetched at a pinned revision, and read as tensors alone, so that no code of them runs."""

import pickle  # for its error class only: nothing is unpickled here
import pickletools
import re
import struct
import warnings
import zipfile
from pathlib import Path

import torch

REPOSITORY = "stanfordmimi/Merlin"  # on the Hugging Face hub
FILES = {
    "contrastive": "i3_resnet_clinical_longformer_best_clip_04-02-2024_23-21-36_epoch_99.pt",
    "five-year": "resnet_clinical_longformer_five_year_disease_prediction.pt",
    "report": "resnet_gpt2_best_stanford_report_generation_average_mtl.pt",
}


class _Bomb(ValueError):
    """A file that asks for more than it holds."""


_OF_PICKLES = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError,
    AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
_TENSORS = re.compile(  # what the pickle of a state dict may name; others make room on a word
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch(\.storage)? \w+Storage|"
    r"torch (Size|device|b?float\d*|double|half|u?int\d+|long|bool)"
)


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of an official `.pt` file, by name; no code in it can run.

    Raises
    ------
    ValueError
        If the file holds anything but tensors, or is not a state dict.
    """
    path = Path(path)
    try:
        _refuse_bombs(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles: they are read, or refused here
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, *_OF_PICKLES) as error:
        raise ValueError(
            f"{path.name}: not readable as a file of tensors ({_said(error)}). Expected a "
            "state dict, as the authors publish; a truncated download or an LFS pointer reads so too."
        ) from None
    for inner in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise ValueError(f"{path.name}: no state dict inside. Expected names and tensors.")
    held, asked = path.stat().st_size, sum(v.numel() * v.element_size() for v in state.values())
    # Some tensors may be one; a few numbers repeated by strides may be billions.
    if asked > 4 * held:
        raise ValueError(
            f"{path.name}: tensors of {asked:,} bytes in a file of {held:,}. Expected one that holds its "
            "numbers; save it again with torch.save."
        )
    for prefix in ("module.", "_orig_mod.", "module."):  # of DataParallel, DDP and torch.compile
        if state and all(str(k).startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def _said(error):
    return str(error) if isinstance(error, _Bomb) else type(error).__name__


def _refuse_bombs(path):
    """Refuse an archive that unpacks to more than itself, and a pickle that names more than tensors."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(p.compress_type != zipfile.ZIP_STORED for p in parts):
            raise _Bomb("compressed inside, which torch.save never does")
        claimed, held = sum(p.file_size for p in parts), path.stat().st_size
        if claimed > held:
            raise _Bomb(f"its parts claim {claimed:,} bytes, the file has {held:,}")
        for part in (p for p in parts if p.filename.endswith("data.pkl")):
            for op, arg, _ in pickletools.genops(archive.read(part)):
                is_named = op.name in ("GLOBAL", "STACK_GLOBAL", "INST")
                if is_named and not _TENSORS.fullmatch(str(arg)):
                    raise _Bomb("its pickle names more than tensors")


def download(kind: str, cache_dir: str | Path, *, revision: str, sha256: str) -> Path:
    """Fetch one released file from the hub, at a pinned revision, and check its hash.

    Parameters
    ----------
    kind : str
        A key of `FILES`.
    cache_dir : path
        Where the hub's files are kept; never the package's folder.
    revision : str
        A full commit hash of the repository.
    sha256 : str
        Expected of the file, 64 hex digits, as the hub shows beside it.

    Returns
    -------
    Path
    """
    from huggingface_hub import hf_hub_download

    from merlin.run import ROOT, file_hash

    cache_dir = Path(cache_dir).resolve()
    if cache_dir.is_relative_to(ROOT / "merlin"):
        raise ValueError(f"{cache_dir} lies inside the package; choose another folder")
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(f"revision {revision!r}: expected a commit hash of 40 hex digits")
    path = Path(hf_hub_download(REPOSITORY, FILES[kind], revision=revision, cache_dir=cache_dir))
    found = file_hash(path)
    if found != sha256.lower():
        raise ValueError(
            f"{path.name}: sha256 is {found}, expected {sha256}. The file is kept, unread."
        )
    return path
