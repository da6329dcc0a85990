"""The authors' checkpoints in and out: which file is which, and a strict, pickle-free conversion.

A released `.pt` file is read once with `weights_only=True` (tensors alone, nothing is unpickled),
told by its tensor names (paper_facts §3.3, §10), loaded strictly into our modules, and written as
safetensors with the configuration beside it. After that the `.pt` is not needed. The other way
round, a model of ours in the paper's shape is written as a state dict that the official code loads.

Which encoder is which: the contrastive file holds both towers (prefix `encode_image.i3_resnet.`);
the five-year file holds a bare image network with six outputs; the report file holds an image network
without heads (`encode_image.`), an adapter and a language model with LoRA.
"""

import pickle  # for its error class only: nothing is unpickled here
import pickletools
import re
import struct
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from merlin.files import atomic_path
from merlin.model.i3d import I3ResNet, ImageConfig, ImageEncoder
from merlin.model.report_writer import ReportWriter
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import diseases, reports
from merlin.training.checkpoint import (
    build_strictly,
    file_header,
    load_strictly,
    load_weights,
    raw_header,
    save_weights,
)
from merlin.vocabulary import DISEASES
from merlin.words import shown

IMAGE = "encode_image.i3_resnet."
REPOSITORY = "stanfordmimi/Merlin"  # on the Hugging Face hub
FILES = {
    "contrastive": "i3_resnet_clinical_longformer_best_clip_04-02-2024_23-21-36_epoch_99.pt",
    "five-year": "resnet_clinical_longformer_five_year_disease_prediction.pt",
    "report": "resnet_gpt2_best_stanford_report_generation_average_mtl.pt",
}
# Of the report file's image network, whose layers stand in one sequence; what lacks has no weights.
SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
LONGFORMER = {"num_hidden_layers": 12, "hidden_size": 768}
GRID = {"spacing_mm": (1.5, 1.5, 3.0), "shape": (224, 224, 160), "hu_window": (-1000.0, 1000.0)}


def read_state(path):
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
    if (
        asked > 4 * held
    ):  # some tensors may be one; a few numbers repeated by strides may be billions
        raise ValueError(
            f"{path.name}: tensors of {asked:,} bytes in a file of {held:,}. Expected one that holds its "
            "numbers; save it again with torch.save."
        )
    for prefix in ("module.", "_orig_mod.", "module."):  # of DataParallel, DDP and torch.compile
        if state and all(str(k).startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


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


def kind_of(state):
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


def import_contrastive(state, text_folder, *, name="checkpoint", image=None):
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
    config = TowersConfig(image, TextConfig(folder=str(text_folder)), GRID["shape"])
    return build_strictly(lambda: TwoTowers(config), state, name=name)


def import_image(state, *, name="checkpoint", depth=152, width=64):
    """A bare image network (the five-year file), strictly; as many outputs as the file has.

    Returns
    -------
    I3ResNet
        In evaluation mode; its second output holds the logits.
    """
    n = len(state["classifier.weight"])
    config = ImageConfig(n_phecodes=n, depth=depth, width=width)
    return build_strictly(lambda: I3ResNet(config), state, name=name)


def split_report(state):
    """The report file's parts: image network, adapter, LoRA pairs and language model.

    Returns
    -------
    dict of str to dict
        `image` and `adapter` (names without prefix), `lora`, `language_model`.
    """
    parts = {"image": {}, "adapter": {}, "lora": {}, "language_model": {}}
    for key, tensor in state.items():
        if key.startswith("encode_image."):
            parts["image"][key.removeprefix("encode_image.")] = tensor
        elif key.startswith("adapter."):
            parts["adapter"][key.removeprefix("adapter.")] = tensor
        else:
            plain = key.removeprefix("decode_text.text_decoder.")
            parts["lora" if "lora_" in plain else "language_model"][plain] = tensor
    return parts


def import_report_image(part, *, name="checkpoint", depth=152, width=64):
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
        model.classifier = model.contrastive_head = None
        return model

    return build_strictly(make, state, name=name)


def import_report_writer(state, language_model, tokenizer, *, name="checkpoint"):
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


def report_tokens(network, volume):
    """(B, 1, R, A, S) → (B, n, C) image tokens as the authors' report model takes them; n is 490 there."""
    return network.features(volume).flatten(2).transpose(1, 2)


def convert(path, out, *, text_folder="", phecodes=None):
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
    names = list(phecodes) if phecodes is not None else [f"output {i}" for i in range(n)]
    if len(names) != n:
        raise ValueError(f"{len(names)} phecodes for {n} outputs; expected as many")
    facts = {"grid": GRID, "phecodes": names, "model": "main", "tier": "full"}
    facts |= {"profile": "full", "seed": None, "source": path.name}
    save_weights(out, model, facts)
    return f"{said}, every one in its place"


def read_converted(path, kind):
    """Tensors of a five-year or report file that `convert` wrote.

    Raises
    ------
    ValueError
        If the file is of another kind.
    """
    found = raw_header(path).get("kind", "weights of ours").strip('"')
    if found != kind:
        raise ValueError(
            f"{Path(path).name}: {shown(found, 80)}. Expected the {kind} checkpoint, converted."
        )
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}


def load_five_year(path):
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
    facts = {"grid": GRID, "tier": "full", "profile": "full", "seed": None}
    return model.eval(), list(DISEASES), facts


def export_contrastive(model, out):
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
        apart += [
            f"text {k}={getattr(own, k)}, the paper's is {v}"
            for k, v in LONGFORMER.items()
            if getattr(own, k) != v
        ]
    _refuse(apart)
    _write_state(model.state_dict(), out)


def export_five_year(model, names, out):
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


def export_report(encoder, writer, out):
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
    found = {"adapter": writer.kind, "LoRA rank": writer.lora_rank,
             "embedding of the language model": writer.adapter.out_features}  # fmt: skip
    found["LoRA alpha"] = writer.lora_alpha
    paper = {"adapter": "tokens", "LoRA rank": 512, "LoRA alpha": 16}
    paper["embedding of the language model"] = 4096
    apart += [f"{k} {v}, the paper's is {paper[k]}" for k, v in found.items() if v != paper[k]]
    _refuse(apart)
    state = {}
    for number, name in SEQUENCE.items():
        for key, value in getattr(encoder.i3_resnet, name).state_dict().items():
            state[f"encode_image.vision_model.features.{number}.{key}"] = value
    state |= {f"adapter.linear2.{k}": v for k, v in writer.adapter.state_dict().items()}
    words = writer.language_model.state_dict()
    state |= {f"decode_text.text_decoder.{k}": v for k, v in words.items()}
    _write_state(state, out)


def _departures(own, *, phecodes=False):
    """Where an image encoder is not the paper's; its phenotype outputs count with `phecodes`."""
    paper = ImageConfig()
    names = (
        "network", "depth", "width", "block", "stem", "stem_depth_stride", "n_stages", "pool",
        "in_channels", "flat", "windows", "stem_width", "embedding_size",
    )  # fmt: skip
    return [
        f"{f}={getattr(own, f)!r}, the paper's is {getattr(paper, f)!r}"
        for f in (*names, *(["n_phecodes"] if phecodes else []))
        if getattr(own, f) != getattr(paper, f)
    ]


def _refuse(apart):
    if apart:
        raise ValueError(
            "the official code has room for the paper's architecture alone:\n  "
            + "\n  ".join(apart)
        )


def _write_state(state, out):
    with atomic_path(out) as part:
        torch.save(dict(state), part)


def export(path, out, *, lm_folder=None):
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
        export_five_year(*diseases.load_model(path)[:2], out)
        return "five-year"
    if kind == reports.KIND:
        encoder, writer, _ = reports.load_model(path, lm_folder=lm_folder)
        export_report(encoder, writer, out)
        return "report"
    export_contrastive(load_weights(path)[0], out)
    return "contrastive"


def download(kind, cache_dir, *, revision, sha256):
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
