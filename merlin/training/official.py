"""The authors' checkpoints in and out: which file is which, and a strict, pickle-free conversion.

A released `.pt` file is read once with `weights_only=True` (tensors alone, nothing is unpickled),
told by its tensor names (paper_facts §3.3, §10), loaded strictly into our modules, and written as
safetensors with the configuration beside it. After that the `.pt` is not needed. The other way
round, a model of ours in the paper's shape is written as a state dict that the official code loads.

Which encoder is which: the contrastive file holds both towers (prefix `encode_image.i3_resnet.`);
the five-year file holds a bare image network with six outputs; the report file holds an image network
without heads (`encode_image.`), an adapter and a language model with LoRA.
"""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import torch
from safetensors.torch import save_file

from merlin.files import atomic_path
from merlin.model.i3d import I3ResNet, ImageConfig, ImageEncoder
from merlin.model.report_writer import ReportWriter
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import checkpoint, diseases, reports
from merlin.training.checkpoint import Tensors, build_strictly, file_header, load_strictly
from merlin.training.official_files import read_state
from merlin.vocabulary import DISEASES
from merlin.words import shown

IMAGE = "encode_image.i3_resnet."
# Of the report file's image network, whose layers stand in one sequence; what lacks has no weights.
SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
LONGFORMER = {"num_hidden_layers": 12, "hidden_size": 768}
SHAPE = (224, 224, 160)
GRID = {"spacing_mm": (1.5, 1.5, 3.0), "shape": SHAPE, "hu_window": (-1000.0, 1000.0)}
FACTS = {"grid": GRID, "tier": "full", "profile": "full", "seed": None}  # of an official model
# Of an image encoder that the official code can hold.
PAPERS = (
    "network", "depth", "width", "block", "stem", "stem_depth_stride", "n_stages", "pool",
    "in_channels", "flat", "windows", "stem_width", "embedding_size",
)  # fmt: skip
# Of a report writer likewise, and where ours has it.
PAPERS_WRITER = {
    "adapter": ("kind", "tokens"),
    "LoRA rank": ("lora_rank", 512),
    "embedding of the language model": ("adapter.out_features", 4096),
    "LoRA alpha": ("lora_alpha", 16),
}
# What stands before the names of an official report file.
ENCODER, ADAPTER, WORDS = "encode_image.", "adapter.", "decode_text.text_decoder."


def kind_of(state: Tensors) -> str:
    """`contrastive`, `five-year` or `report`, told by tensor names.

    Raises
    ------
    ValueError
        Naming some of the tensors that were found.
    """
    if f"{IMAGE}conv1.weight" in state:
        return "contrastive"
    if "conv1.weight" in state and "classifier.weight" in state:
        return "five-year"
    if any(k.startswith("decode_text.") for k in state):
        return "report"
    some = ", ".join(shown(k, 80) for k in list(state)[:3])
    raise ValueError(f"not one of the released checkpoints: it holds {some}, …")


def import_contrastive(
    state: Tensors, text_folder: str | Path, *, name: str = "checkpoint",
    image: ImageConfig | None = None,
) -> TwoTowers:  # fmt: skip
    """The official contrastive model as a `TwoTowers`, strictly.

    Parameters
    ----------
    state : dict of str to tensor
    text_folder : path
        A local copy of `yikuan8/Clinical-Longformer` (configuration and tokeniser; its weights are
        replaced by the checkpoint's).
    name : str
        For messages.
    image : ImageConfig, optional
        Default: the paper's.

    Returns
    -------
    TwoTowers
        In evaluation mode.
    """
    image = image or ImageConfig()
    config = TowersConfig(image, TextConfig(folder=str(text_folder)), SHAPE)
    return build_strictly(lambda: TwoTowers(config), state, name=name)


def import_image(
    state: Tensors, *, name: str = "checkpoint", depth: int = 152, width: int = 64
) -> I3ResNet:
    """A bare image network (the five-year file), strictly; as many outputs as the file has.

    Returns
    -------
    I3ResNet
        In evaluation mode; its second output holds the logits.
    """
    n = len(state["classifier.weight"])
    config = ImageConfig(n_phecodes=n, depth=depth, width=width)
    return build_strictly(lambda: I3ResNet(config), state, name=name)


def split_report(state: Tensors) -> dict[str, Tensors]:
    """The report file's parts: image network, adapter, LoRA pairs and language model.

    Returns
    -------
    dict of str to dict
        `image` and `adapter` (names without prefix), `lora`, `language_model`.
    """
    parts: dict[str, Tensors] = {"image": {}, "adapter": {}, "lora": {}, "language_model": {}}
    for key, tensor in state.items():
        if key.startswith(ENCODER):
            parts["image"][key.removeprefix(ENCODER)] = tensor
        elif key.startswith(ADAPTER):
            parts["adapter"][key.removeprefix(ADAPTER)] = tensor
        else:
            plain = key.removeprefix(WORDS)
            parts["lora" if "lora_" in plain else "language_model"][plain] = tensor
    return parts


def import_report_image(
    part: Tensors, *, name: str = "checkpoint", depth: int = 152, width: int = 64
) -> I3ResNet:
    """The report file's image network, strictly; it has no heads.

    The authors hold its layers in one sequence, so that names are numbers.

    Parameters
    ----------
    part : dict of str to tensor
        `image` of `split_report`.

    Returns
    -------
    I3ResNet
        In evaluation mode, `classifier` and `contrastive_head` None.
    """
    state = {}
    for key, tensor in part.items():
        number, _, rest = key.removeprefix("vision_model.features.").partition(".")
        state[f"{SEQUENCE.get(number, number)}.{rest}"] = tensor

    def make():
        model = I3ResNet(ImageConfig(depth=depth, width=width))
        for head in ("classifier", "contrastive_head"):
            model.register_module(head, None)
        return model

    return build_strictly(make, state, name=name)


def import_report_writer(
    state: Tensors, language_model, tokenizer, *, name: str = "checkpoint"
) -> ReportWriter:
    """The report file's adapter, LoRA pairs and language-model weights in a `ReportWriter`, strictly.

    Parameters
    ----------
    state : dict of str to tensor
    language_model : transformers causal model
        Of the checkpoint's family and size (the authors' is RadLLaMA-7b); its weights are replaced by
        the checkpoint's. LoRA of the checkpoint's rank is put on peft's default targets.
    tokenizer : its tokeniser
    name : str
        For messages.

    Returns
    -------
    ReportWriter
        In evaluation mode; reads `report_tokens`.

    Raises
    ------
    ValueError
        Naming every tensor that is missing, unexpected or of another shape.
    """
    parts = split_report(state)
    pairs = [k for k in parts["lora"] if "lora_A" in k]
    adapter = {k.removeprefix("linear2."): v for k, v in parts["adapter"].items()}
    if not pairs or "weight" not in adapter:
        raise ValueError(f"{name}: no adapter.linear2.weight or no LoRA pair inside")
    adapter.setdefault("bias", torch.zeros(len(adapter["weight"])))  # of a map without one
    writer = ReportWriter(
        language_model,
        tokenizer,
        adapter["weight"].shape[1],
        adapter="tokens",
        lora_rank=len(parts["lora"][pairs[0]]),
    )
    load_strictly(writer.adapter, adapter, name=f"{name}, adapter")
    both = parts["lora"] | parts["language_model"]
    load_strictly(writer.language_model, both, name=f"{name}, language model")
    return writer.eval()


def report_tokens(network: I3ResNet, volume: torch.Tensor) -> torch.Tensor:
    """(B, 1, R, A, S) → (B, n, C) image tokens as the authors' report model takes them; n is 490 there."""
    return network.features(volume).flatten(2).transpose(1, 2)


def convert(
    path: str | Path, out: str | Path, *, text_folder: str | Path = "",
    phecodes: Sequence[str] | None = None,
) -> str:  # fmt: skip
    """An official `.pt` as safetensors, once, after a strict load.

    The contrastive file becomes `weights.safetensors` of ours, which every notebook reads. Tensors of the
    other two keep their names, and the file its kind as metadata: `read_converted` gives them back.

    Parameters
    ----------
    path, out : path
    text_folder : path
        Of Clinical-Longformer; for the contrastive file.
    phecodes : sequence of str, optional
        Names of the phenotype outputs in order; without them outputs are numbered.

    Returns
    -------
    str
        What was read, for the user.
    """
    path = Path(path)
    state = read_state(path)
    kind = kind_of(state)
    said = f"{len(state):,} tensors of the official {kind} checkpoint"
    if kind != "contrastive":
        if kind == "five-year":
            import_image(state, name=path.name)
            said += ", every one in its place: `merlin five-year` judges it"
        else:
            import_report_image(split_report(state)["image"], name=path.name)
            said += ", those of the image network in their places: read_converted, split_report, "
            said += "import_report_image and import_report_writer give the parts"
        with atomic_path(out) as part:
            save_file({k: v.contiguous() for k, v in state.items()}, part, {"kind": kind})
        return said
    if not text_folder:
        raise ValueError(
            "--text-folder is missing: a local copy of yikuan8/Clinical-Longformer, for its "
            "tokeniser and configuration."
        )
    model = import_contrastive(state, text_folder, name=path.name)
    n = model.config.image.n_phecodes
    names = [f"output {i}" for i in range(n)] if phecodes is None else list(phecodes)
    if len(names) != n:
        raise ValueError(f"{len(names)} phecodes for {n} outputs; expected as many")
    facts = {"grid": GRID, "phecodes": names, "model": "main"} | FACTS
    checkpoint.save_weights(out, model, facts | {"source": path.name})
    return f"{said}, every one in its place"


def read_converted(path: str | Path, kind: str) -> Tensors:
    """Tensors of a five-year or report file that `convert` wrote.

    Raises
    ------
    ValueError
        If the file is of another kind.
    """
    found = checkpoint.raw_header(path).get("kind", "weights of ours").strip('"')
    if found != kind:
        raise ValueError(
            f"{Path(path).name}: {shown(found, 80)}. Expected the {kind} checkpoint, converted."
        )
    return checkpoint.read_tensors(path)


def load_five_year(path: str | Path) -> tuple[diseases.DiseaseModel, list[str], dict]:
    """A five-year model: ours, or the official file as `convert` wrote it.

    Returns
    -------
    model : diseases.DiseaseModel
        In evaluation mode.
    names : list of str
        Of its outputs. The official file says none: `DISEASES`, in the data release's order; the
        authors' demonstration calls the sixth chronic liver disease, their data osteoporosis.
    facts : dict
        `grid` among them.

    Raises
    ------
    ValueError
        If the file is another one.
    """
    if file_header(path).get("kind") == diseases.KIND:
        return diseases.load_model(path)
    network = import_image(read_converted(path, "five-year"), name=Path(path).name)
    head = network.classifier
    model = diseases.DiseaseModel(ImageEncoder(network.config), head.out_channels)
    model.encoder.i3_resnet = network
    model.head.load_state_dict({"weight": head.weight.flatten(1), "bias": head.bias})
    return model.eval(), list(DISEASES), dict(FACTS)


def export_contrastive(model: TwoTowers, out: str | Path) -> None:
    """Write a model of ours in the paper's shape as a state dict that the official code loads.

    Raises
    ------
    ValueError
        If the model departs from the paper's architecture, naming how.
    """
    apart = _departures(model.config.image, phecodes=True)
    text = model.config.text.kind
    if text != "longformer":
        apart.append(f"text={text!r}, the paper's is 'longformer'")
    else:
        own = model.encode_text.text_encoder.config
        found = {k: getattr(own, k) for k in LONGFORMER}
        apart += [
            f"text {k}={v}, the paper's is {LONGFORMER[k]}"
            for k, v in found.items()
            if v != LONGFORMER[k]
        ]
    _refuse(apart)
    _write_state(model.state_dict(), out)


def export_five_year(model: diseases.DiseaseModel, names: Sequence[str], out: str | Path) -> None:
    """Write a `DiseaseModel` of ours as the bare image network of the official five-year file.

    Parameters
    ----------
    model : DiseaseModel
    names : sequence of str
        Of its outputs: those of `DISEASES`, in the data release's order.
    out : path

    Raises
    ------
    ValueError
        As `export_contrastive`.
    """
    apart = _departures(model.encoder.config)
    if list(names) != list(DISEASES):
        apart.append(f"outputs {', '.join(names)}, the released ones are {', '.join(DISEASES)}")
    _refuse(apart)
    state = dict(model.encoder.i3_resnet.state_dict())
    for name, value in model.head.state_dict().items():  # a 1³ convolution there, a linear map here
        shape = (*value.shape, 1, 1, 1) if name == "weight" else value.shape
        state[f"classifier.{name}"] = value.reshape(shape)
    _write_state(state, out)


def export_report(encoder: ImageEncoder, writer: ReportWriter, out: str | Path) -> None:
    """Write an encoder and a report writer of ours in the layout of the official report file.

    Its code builds RadLLaMA-7b around the weights: a writer of another language model fits the layout,
    and that code only where the language models agree.

    Parameters
    ----------
    encoder : ImageEncoder
    writer : ReportWriter
    out : path

    Raises
    ------
    ValueError
        As `export_contrastive`; the writer must read tokens, through LoRA of rank 512, into 4,096
        numbers.
    """
    apart = _departures(encoder.config)
    for what, (name, papers) in PAPERS_WRITER.items():
        found = attrgetter(name)(writer)
        apart += [f"{what} {found}, the paper's is {papers}"] if found != papers else []
    _refuse(apart)
    state = {}
    for number, name in SEQUENCE.items():
        for key, value in getattr(encoder.i3_resnet, name).state_dict().items():
            state[f"{ENCODER}vision_model.features.{number}.{key}"] = value
    state |= {f"{ADAPTER}linear2.{k}": v for k, v in writer.adapter.state_dict().items()}
    state |= {f"{WORDS}{k}": v for k, v in writer.language_model.state_dict().items()}
    _write_state(state, out)


def _departures(own, *, phecodes=False):
    """Where an image encoder is not the paper's; its phenotype outputs count with `phecodes`."""
    names = (*PAPERS, "n_phecodes") if phecodes else PAPERS
    pairs = {f: (getattr(own, f), getattr(ImageConfig(), f)) for f in names}
    return [f"{f}={a!r}, the paper's is {b!r}" for f, (a, b) in pairs.items() if a != b]


def _refuse(apart):
    if apart:
        raise ValueError(
            "the official code has room for the paper's architecture alone:\n  "
            + "\n  ".join(apart)
        )


def _write_state(state, out):
    with atomic_path(out) as part:
        torch.save(dict(state), part)


def export(path: str | Path, out: str | Path, *, lm_folder: str | Path | None = None) -> str:
    """Write any model file of ours in the layout of the official file of its kind.

    Parameters
    ----------
    path : path
        Weights of `02_pretraining`, `08_five_year` or `09_report_generation`.
    out : path
    lm_folder : path, optional
        Of a report model's language model, where it came from one.

    Returns
    -------
    str
        The kind, a key of `FILES`.
    """
    kind = file_header(path).get("kind")
    if kind == diseases.KIND:
        model, names, _ = diseases.load_model(path)
        export_five_year(model, names, out)
        return "five-year"
    if kind == reports.KIND:
        encoder, writer, _ = reports.load_model(path, lm_folder=lm_folder)
        export_report(encoder, writer, out)
        return "report"
    export_contrastive(checkpoint.load_weights(path)[0], out)
    return "contrastive"
