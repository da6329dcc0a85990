"""Training a report writer on sections, and writing whole reports with it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.nn import functional as F
from tqdm import tqdm

from merlin.model import report_writer
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.model.report_writer import PROMPT, ReportWriter
from merlin.model.two_towers import feature_shape
from merlin.run import atomic
from merlin.training.adapt import batches, minimise, volumes_at_once
from merlin.training.checkpoint import (
    build_strictly,
    load_strictly,
    load_tensors,
    planned,
    refuse_misfit,
    save_tensors,
)

Features = np.ndarray | torch.Tensor


def fit(
    writer: ReportWriter, features: Features, sections: np.ndarray, names: Sequence[str], *,
    n_steps: int, batch_size: int, learning_rate: float, seed: int, rows: np.ndarray | None = None,
    device: str = "cpu", desc: str = "writing lessons", show: bool = True,
    checkpoint: str | Path | None = None, fingerprint: str = "",
) -> list[dict]:  # fmt: skip
    """Train adapter and language model on (study, section) pairs; empty sections are skipped.

    Parameters
    ----------
    writer : ReportWriter
    features : (n, F) or (n, tokens, F) float tensor or array
    sections : (n, n_sections) str
    names : sequence of str
        Of the sections, for the prompt.
    rows : (n,) int, optional
        Where in `features` each row of `sections` has its own; default: in the same order.
    checkpoint, fingerprint
        As in `minimise`.

    Returns
    -------
    list of dict
    """
    rows = np.arange(len(sections)) if rows is None else np.asarray(rows)
    study, section = np.nonzero(sections.astype(bool))
    draw = batches(len(study), batch_size, seed=seed)
    prompts = [PROMPT.format(section=n) for n in names]
    writer.train()

    def loss_at(step: int, rng: np.random.Generator) -> torch.Tensor:
        index = draw(step)
        which, columns = study[index], section[index]
        return writer.loss(
            _read(features, rows[which], device),
            [prompts[c] for c in columns],
            [sections[r, c] for r, c in zip(which, columns, strict=True)],
        )

    adapter = list(writer.adapter.parameters())
    groups = [(adapter, learning_rate), (writer.language_model.parameters(), learning_rate)]
    return minimise(
        groups, loss_at, n_steps, seed=seed, weight_decay=0.01, desc=desc, show=show,
        checkpoint=checkpoint, fingerprint=fingerprint,
    )  # fmt: skip


def write_reports(
    writer: ReportWriter, features: Features, names: Sequence[str], *, rows: np.ndarray | None = None,
    batch_size: int = 256, max_new_tokens: int = 128, repetition_penalty: float = 1.2,
    device: str = "cpu", show: bool = True,
) -> np.ndarray:  # fmt: skip
    """(n, n_sections) str: a text for every study (of `rows`, as in `fit`) and section."""
    rows = np.arange(len(features)) if rows is None else np.asarray(rows)
    out = np.empty((len(rows), len(names)), object)
    parts = np.array_split(np.arange(len(rows)), -(-len(rows) // batch_size))
    jobs = [(c, part) for c in range(len(names)) for part in parts]
    for c, part in tqdm(jobs, desc="writing reports", mininterval=5, disable=not show):
        out[part, c] = writer.write(
            _read(features, rows[part], device),
            [PROMPT.format(section=names[c])] * len(part),
            max_new_tokens=max_new_tokens,
            repetition_penalty=repetition_penalty,
        )
    return out


def encode_features(
    encoder: ImageEncoder, volumes: Callable[[int], np.ndarray], n: int, *, adapter: str,
    path: str | Path, mark: str, batch_size: int | None = None, device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Encode volumes once with a frozen image encoder, and keep the features in a file.

    Memory stays flat: features go to the file as they are made, and are read from it as they are
    needed. The paper's 490 tokens of 2,048 channels are 2 MB a study.

    Parameters
    ----------
    encoder : ImageEncoder
        In evaluation mode.
    volumes : callable
        Index → (R, A, S) float32.
    adapter : {"flat", "tokens"}
        The contrastive embedding, scaled to unit variance, or every position of the last feature map.
    path : path
        Of a folder for the files; read again if its `mark` is the same.
    batch_size : int, optional
        Volumes encoded at once; default by their size.

    Returns
    -------
    features : (n, F) or (n, tokens, F) float16 array, on disk
    image : (n, D) float32 array
        Unit contrastive embeddings.
    logits : (n, n_phecodes) float32 array
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    whole, said = path / "features.npy", path / "mark.txt"
    small: dict[str, list[np.ndarray]] = {"image": [], "logits": []}
    if said.exists() and said.read_text() == mark:
        return np.load(whole, mmap_mode="r"), *(np.load(path / f"{k}.npy") for k in small)
    said.unlink(missing_ok=True)
    part = path / "unfinished-features.npy"
    part.unlink(missing_ok=True)  # also where it is a link
    size = batch_size or volumes_at_once(volumes(0).size)
    features = None
    with torch.inference_mode():
        for some in tqdm(
            np.array_split(np.arange(n), -(-n // size)), desc="encoding", mininterval=5
        ):
            batch = torch.from_numpy(np.stack([volumes(int(i)) for i in some]))[:, None].to(device)
            maps = encoder.i3_resnet.features(batch)
            pooled = encoder.pooled(maps)
            unit = F.normalize(encoder.contrastive(pooled).float(), dim=1)
            found = unit * unit.shape[1] ** 0.5
            if adapter == "tokens":
                found = maps.flatten(2).transpose(1, 2)
            if features is None:
                shape = (n, *found.shape[1:])
                features = open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
            features[some] = found.half().cpu().numpy()
            small["image"].append(unit.cpu().numpy())
            small["logits"].append(encoder.phecodes(pooled).float().cpu().numpy())
    assert features is not None  # there are studies
    features.flush()
    part.replace(whole)
    for name, parts in small.items():
        np.save(path / f"{name}.npy", np.concatenate(parts))
    with atomic(said) as stream:
        stream.write(mark)
    return np.load(whole, mmap_mode="r"), *(np.concatenate(parts) for parts in small.values())


def _read(features: Features, rows: np.ndarray, device: str) -> torch.Tensor:
    """Some studies' features, from memory or disk, as a float32 tensor."""
    return torch.as_tensor(np.asarray(features[rows])).float().to(device)


KIND = "a report model"


def save_model(
    path: str | Path, encoder: ImageEncoder, writer: ReportWriter, facts: dict, *,
    lm_folder: str | Path = "",
) -> None:  # fmt: skip
    """Write encoder and writer as safetensors with what rebuilds them.

    Of a language model that was read from a folder and frozen beside LoRA, the low-rank matrices alone
    are written: the rest is still in its folder.

    Parameters
    ----------
    path : path
    encoder : ImageEncoder
    writer : ReportWriter
    facts : dict
        JSON-able; `grid` of `load_weights`' metadata is needed to load the model again.
    lm_folder : path
        Where the language model came from; empty for one of `small_language_model`.
    """
    tensors = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    for name, value in writer.state_dict().items():
        if not (lm_folder and writer.lora_rank) or _is_trained(name):
            tensors[f"writer.{name}"] = value
    options = {"adapter": writer.kind, "n_tokens": writer.n_tokens, "prompts": list(writer.number)}
    options |= {k: getattr(writer, k) for k in ("lora_rank", "lora_alpha", "lora_dropout")}
    header = {
        "kind": KIND,
        "config": asdict(encoder.config),
        "writer": options | {"feature_size": writer.adapter.in_features},
        "frozen": frozen_mark(writer) if lm_folder and writer.lora_rank else "",
        "lm_folder": Path(lm_folder).name,  # the rest of the path is about somebody's machine
        "metadata": facts,
    }  # fmt: skip
    if not lm_folder:
        language_model = writer.language_model
        header["language_model"] = language_model.config.to_dict()
        header["tokenizer"] = writer.tokenizer.backend_tokenizer.to_str()
    # Tied weights are one tensor under two names, which the format refuses.
    save_tensors(path, {k: v.clone() for k, v in tensors.items()}, header)


def _is_trained(name: str) -> bool:
    """Of a writer's tensors beside LoRA."""
    return "lora_" in name or name.startswith("adapter.")


def frozen_mark(writer: ReportWriter) -> str:
    """A hash over names, shapes and some values of the language model that LoRA stands beside."""
    digest = hashlib.sha256()
    for name, value in writer.state_dict().items():
        if not _is_trained(name):
            some = value.detach().flatten()[:1000].float().cpu().numpy().tobytes()
            digest.update(f"{name} {tuple(value.shape)}".encode() + some)
    return digest.hexdigest()[:16]


def load_model(
    path: str | Path, *, lm_folder: str | Path | None = None
) -> tuple[ImageEncoder, ReportWriter, dict]:
    """Rebuild what `save_model` wrote, in evaluation mode.

    Parameters
    ----------
    path : path
    lm_folder : path, optional
        Of the language model, where it came from one.

    Returns
    -------
    encoder : ImageEncoder
    writer : ReportWriter
    facts : dict

    Raises
    ------
    ValueError
        If the folder is needed and not named, or tensors do not fit, naming them.
    """
    tensors, header = load_tensors(path, KIND)
    part = lambda p: {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)}  # noqa: E731

    def make_encoder() -> ImageEncoder:
        image = ImageConfig.from_dict(header["config"])
        shape = feature_shape(image, header["metadata"]["grid"]["shape"])
        return ImageEncoder(image, feature_shape=shape)

    def make_writer() -> ReportWriter:
        if header["lm_folder"]:
            made = report_writer.language_model_from(lm_folder or "")
        else:
            made = report_writer.language_model_of(header["tokenizer"], header["language_model"])
        options = dict(header["writer"])
        return ReportWriter(*made, options.pop("feature_size"), **options)

    encoder = build_strictly(make_encoder, part("encoder."), name=str(path))
    if header.get("lm_folder") and not lm_folder:
        name = header["lm_folder"]
        raise ValueError(
            f"{path}: its language model came from a folder called {name}, which must be named "
            "(lm_folder, or --lm-folder)."
        )
    found = part("writer.")
    plan = planned(make_writer, name=str(path)).state_dict()
    rest = {k: v for k, v in plan.items() if not _is_trained(k)} if header.get("frozen") else {}
    refuse_misfit(plan, rest | found, name=str(path))
    writer = make_writer()
    own = writer.state_dict()
    if header.get("frozen"):  # the rest is the folder's
        if frozen_mark(writer) != header["frozen"]:
            raise ValueError(
                f"{path}: {lm_folder} holds another language model than the one that was adapted, "
                f"{header['lm_folder']}."
            )
        found = {k: v for k, v in own.items() if not _is_trained(k)} | found
    load_strictly(writer, found, name=str(path))
    return encoder, writer.eval(), header["metadata"]
