"""Files of a training run: a complete checkpoint to resume from, and the weights it ends with.

A checkpoint holds everything the next step depends on: weights and buffers, optimiser, random
state of every process, step and log. The learning rate and the batches are functions of the step, so
they need no state. One that does not fit is kept aside under a name that says why. Weights go out as
safetensors with the model's configuration beside them. Both are written to a temporary neighbour and
moved, so that a file of that name is always whole.
"""

import json
import pickle  # for its error class only: nothing is unpickled here
import sys
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from merlin.files import atomic_path
from merlin.model.text import HUB
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.words import shown, without_folders

Tensors = dict[str, torch.Tensor]
M = TypeVar("M", bound=nn.Module)


def random_state() -> Tensors:
    """What this process would draw next: on the CPU, and on its own GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def save_checkpoint(
    path: str | Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, step: int,
    log: list[dict], fingerprint: str, scaler: torch.amp.GradScaler | None = None,
    random: list[Tensors] | None = None,
) -> None:  # fmt: skip
    """Write a resumable checkpoint atomically.

    Parameters
    ----------
    path : path
    model, optimizer
    step : int
        Steps done.
    log : list of dict
        Plain numbers.
    fingerprint : str
        Of settings, data and code; a checkpoint of another fingerprint is not resumed.
    scaler : torch.amp.GradScaler, optional
    random : list of dict, optional
        `random_state` of every process that trains, in order of rank; default: this one's alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else {},
        "step": step,
        "log": json.dumps(log),
        "fingerprint": fingerprint,
        "random": random or [random_state()],
    }
    with atomic_path(path) as part:
        torch.save(state, part)


def resume_checkpoint(
    path: str | Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str,
    scaler: torch.amp.GradScaler | None = None, rank: int = 0,
) -> tuple[int, list[dict], str]:  # fmt: skip
    """Put a checkpoint back, if there is one that belongs to this run; keep any other aside.

    Parameters
    ----------
    rank : int
        Of this process, where several train: each gets the random state that it had itself, and the
        first alone moves files.

    Returns
    -------
    step : int
        Steps already done; 0 if nothing was resumed.
    log : list of dict
    note : str
        What was found, for the reader.
    """
    path = Path(path)
    if not path.exists():
        return 0, [], "starting from step 0"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        kept = f"({type(error).__name__}), kept as {_aside(path, 'unreadable', rank)}"
        return 0, [], f"checkpoint unreadable {kept}; starting anew"
    if state["fingerprint"] != fingerprint:
        other, said = _difference(state["fingerprint"], fingerprint)
        kept = f"kept as {_aside(path, other, rank)}; starting anew"
        return 0, [], f"the checkpoint there, of step {state['step']:,}, belongs to {said}: {kept}"
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    note = f"resumed after step {state['step']}"
    if rank < len(state["random"]):
        drawn = state["random"][rank]
        torch.set_rng_state(drawn["cpu"])
        if "cuda" in drawn and torch.cuda.is_available():
            torch.cuda.set_rng_state(drawn["cuda"])
    else:
        note += f"; process {rank} is new and draws from its start"
    return state["step"], json.loads(state["log"]), note


def announce(path: str | Path, note: str) -> None:
    """Say on the console what became of the checkpoint at `path`.

    On the error stream, between carriage returns: so papermill and the workflow let it through.
    """
    sys.stderr.write(f"\rNote: {Path(path).parent.name}: {note}\n\r")
    sys.stderr.flush()


def keep_aside(path: str | Path, why: str) -> str:
    """Rename a file so that its name says why and when, over no other; its new name.

    `checkpoint.pt` becomes `checkpoint.other-settings.20261201-0512.pt`, then `…-0512-2.pt`.
    """
    path = Path(path)
    stem = f"{path.stem}.{why}.{time.strftime('%Y%m%d-%H%M')}"
    names = (f"{stem}{n}{path.suffix}" for n in ("", *(f"-{k}" for k in range(2, 1000))))
    free = next(to for name in names if not (to := path.with_name(name)).exists())
    path.rename(free)
    return free.name


def _aside(path, why, rank):
    """As `keep_aside`, by the first process; what the others say of it."""
    return keep_aside(path, why) if rank == 0 else "the first process says"


def _difference(before: str, now: str) -> tuple[str, str]:
    """Why two fingerprints differ, as a word of a file's name and in words for the reader.

    Those of pretraining are lists of (data and code, seed, settings); of others nothing is known.
    """
    try:
        (data, seed, settings), (data_now, seed_now, settings_now) = map(
            literal_eval, (before, now)
        )
        keys = [k for k in (*settings, *settings_now) if settings.get(k) != settings_now.get(k)]
    except (ValueError, SyntaxError, TypeError, AttributeError):
        return "other-run", "other settings, data or code"
    changes = [
        f"{k} was {settings.get(k)!r}, is {settings_now.get(k)!r}" for k in dict.fromkeys(keys)
    ]
    changes += [f"seed was {seed}, is {seed_now}"] if seed != seed_now else []
    changes += ["data or code"] if data != data_now else []
    return "other-settings" if keys or seed != seed_now else "other-data-or-code", (
        f"other settings, data or code ({shown('; '.join(changes), 200)})"
    )


def save_weights(path: str | Path, model: TwoTowers, metadata: dict) -> None:
    """Write weights as safetensors with the configuration that rebuilds the model.

    Parameters
    ----------
    path : path
    model : TwoTowers
        A text encoder from a folder is found again through a link beside `path`: in the header stands
        no place of this machine.
    metadata : dict
        JSON-able facts of the run, as phecodes, grid and provenance.
    """
    header = {"config": model.config.to_dict(), "metadata": metadata}
    save_tensors(path, model.state_dict(), header)
    link_text_folder(path, model.config.text.folder)


def link_text_folder(path: str | Path, folder: str) -> None:
    """Link the text encoder's folder beside weights, whose header holds its name alone."""
    source, link = Path(folder), Path(path).parent / Path(folder).name
    if not folder or not source.is_dir() or link.resolve() == source.resolve():
        return
    if link.is_symlink() or link.exists():
        raise FileExistsError(
            f"{link} is something else than the text encoder's folder, which weights look for beside "
            "them. Move it away, or write the weights to another folder."
        )
    link.symlink_to(source.resolve())


def text_folder(path: str | Path) -> str:
    """The text encoder's folder, beside weights of `save_weights`; empty if they need none."""
    name = Path(TowersConfig.from_dict(json.loads(_header(path)["config"])).text.folder).name
    return str(Path(path).absolute().parent / name) if name else ""


def save_tensors(path: str | Path, tensors: Tensors, header: dict) -> None:
    """Write tensors as safetensors, each value of the header as JSON, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # A tokenizer's text, say, is no place of ours.
    header |= {k: without_folders(header[k]) for k in ("config", "metadata") if k in header}
    header = {k: json.dumps(v, default=str) for k, v in header.items()}
    with atomic_path(path) as part:
        save_file(tensors, part, metadata=header)


def load_tensors(path: str | Path, kind: str) -> tuple[Tensors, dict]:
    """Tensors and header of a file of `save_tensors` whose header says this `kind`.

    Raises
    ------
    ValueError
        If it says another, or none.
    """
    header = file_header(path)
    if header.get("kind") != kind:
        raise ValueError(
            f"{path}: {shown(header.get('kind') or 'no adapted model', 80)} inside. Expected {kind}."
        )
    return read_tensors(path), header


def read_tensors(path: str | Path) -> Tensors:
    """All tensors of a safetensors file."""
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}


def file_header(path: str | Path) -> dict:
    """The header of a safetensors file of ours, values from JSON; empty for a file of another kind."""
    header = raw_header(path)
    try:
        return {k: json.loads(v) for k, v in header.items()}
    except (ValueError, RecursionError):
        return {}


def raw_header(path: str | Path) -> dict[str, str]:
    """A safetensors file's metadata, as text.

    Raises
    ------
    ValueError
        If it is no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({shown(error, 200)}). An official .pt is converted once with "
            "`merlin weights`; a cut file must be copied again."
        ) from None


def load_weights(path: str | Path) -> tuple[TwoTowers, dict]:
    """Rebuild a model from `save_weights`, in evaluation mode on the CPU.

    Returns
    -------
    model : TwoTowers
    metadata : dict

    Raises
    ------
    ValueError
        If the file is not one of ours or its tensors do not fit, naming them.
    """
    header = _header(path)
    tensors = read_tensors(path)
    with refusing_header(path):
        config = TowersConfig.from_dict(json.loads(header["config"]))
        metadata = _facts(header)
    if config.text.folder.startswith(HUB):
        raise ValueError(
            f"{path}: its text encoder would be fetched from the network ({shown(config.text.folder, 80)}). "
            "Load it once from a local folder and save the weights again."
        )
    towers = replace(config, text=replace(config.text, folder=text_folder(path)))
    return build_strictly(lambda: TwoTowers(towers), tensors, name=str(path)), metadata


def read_facts(path: str | Path) -> dict:
    """The metadata of `save_weights` alone: grid, phecodes, tier and provenance."""
    header = _header(path)
    with refusing_header(path):
        return _facts(header)


def _facts(header):
    facts = json.loads(header["metadata"])
    if not isinstance(facts, dict):
        raise TypeError("metadata must be keys and values")
    return facts


def _header(path):
    header = raw_header(path)
    if "config" not in header or "kind" in header:
        inside = shown(header.get("kind", "no model configuration").strip('"'), 80)
        raise ValueError(
            f"{path}: {inside} inside. Expected weights written by 02_pretraining "
            "(save_weights), or by `merlin weights` from an official checkpoint."
        )
    return header


@contextmanager
def refusing_header(name: str | Path) -> Iterator[None]:
    """Whatever a file's configuration makes go wrong is a ValueError that names the file."""
    try:
        yield
    except (MemoryError, FileNotFoundError):  # the latter says which folder, and the way out
        raise
    except Exception as error:
        raise ValueError(
            f"{name}: its header makes no model ({type(error).__name__}: {shown(error, 200)}). Expected "
            "a file as 02_pretraining, 08_five_year and 09_report_generation write it."
        ) from error


class _ShortRows(TorchFunctionMode):
    """Rows of numbers that a network reads while it is built are real on the meta device too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return func(*args, **({"device": "cpu"} | kwargs if func is torch.linspace else kwargs))


def planned(make: Callable[[], M], *, name: str) -> M:
    """The model that `make` builds, shapes alone: a file's header may ask for any size.

    Raises
    ------
    ValueError
        If it builds none.
    """
    with refusing_header(name), torch.device("meta"), _ShortRows():
        return make()


def build_strictly(make: Callable[[], M], tensors: Tensors, *, name: str) -> M:
    """The model that `make` builds, in evaluation mode, with these tensors: all of them, and no other.

    Raises
    ------
    ValueError
        As `refuse_misfit`, before memory is taken.
    """
    refuse_misfit(planned(make, name=name).state_dict(), tensors, name=name)
    model = make()
    model.load_state_dict(tensors)
    return model.eval()


def load_strictly(model: nn.Module, tensors: Tensors, *, name: str) -> None:
    """`load_state_dict` after `refuse_misfit`."""
    refuse_misfit(model.state_dict(), tensors, name=name)
    model.load_state_dict(tensors)


def refuse_misfit(own: Tensors, tensors: Tensors, *, name: str) -> None:
    """List every tensor that is missing, unexpected or of another shape than a model's own.

    Raises
    ------
    ValueError
    """
    problems = [f"{k}: missing" for k in own if k not in tensors]
    problems += [f"{k}: unexpected" for k in tensors if k not in own]
    problems += [
        f"{k}: shape {tuple(tensors[k].shape)}, expected {tuple(v.shape)}"
        for k, v in own.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if problems:
        some = "\n  ".join(shown(p, 200) for p in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(f"{name}: {len(problems)} tensors do not fit this model\n  {some}{more}")
