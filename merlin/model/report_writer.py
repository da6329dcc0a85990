"""Report generation: image tokens → linear adapter → causal language model, section by section.

The image encoder stays frozen and its features are computed once. The adapter maps them to the
language model's embeddings, which go before the embedded prompt (paper_facts §3.5). `tokens` maps
each position of the last feature map to one token, as the paper does; `flat` maps the contrastive
embedding to a few tokens, by weights of its own for each section: a small language model that starts
from nothing learns late which part of an image a section is about.

Any Hugging Face causal model with its tokeniser will do, from a local folder, adapted through LoRA
(peft). The phantom default is a small one made here, with a tokeniser trained on the reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from merlin.model import text

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import (
        GPT2LMHeadModel,
        PreTrainedModel,
        PreTrainedTokenizerFast,
    )

END = "###"
PROMPT = "Generate a radiology report for {section}" + END  # the paper's template
ADAPTERS = ("flat", "tokens")


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 1500) -> PreTrainedTokenizerFast:
    """A reversible byte-pair tokeniser of these texts, with `###` as its end.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return _fast(tokenizer)


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )


def small_language_model(
    tokenizer: PreTrainedTokenizerFast, *, hidden_size: int, n_layers: int, max_length: int
) -> GPT2LMHeadModel:
    """A GPT-2 of a few layers with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=max_length,
            n_embd=hidden_size,
            n_layer=n_layers,
            n_head=max(1, hidden_size // 32),
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def language_model_of(
    tokenizer: str, config: dict
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The small model and its tokeniser from a file's header: text of the one, values of the other."""
    from tokenizers import Tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    text.refuse_deep(config)
    model = GPT2LMHeadModel(GPT2Config.from_dict(config))
    return model, _fast(Tokenizer.from_str(tokenizer))


def require_language_model(folder: str | Path) -> Path:
    """The folder as a path, if there is a Hugging Face model in it.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    return text.model_folder(
        folder,
        "Put a causal language model with its tokeniser there, as RadLLaMA-7b in the paper, and name it "
        "as lm_folder.",
    )


def language_model_from(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A Hugging Face causal model and its tokeniser from a local folder; no network.

    Raises
    ------
    FileNotFoundError
        If there is no model in the folder.
    """
    model, tokenizer = text.load_model(require_language_model(folder), "AutoModelForCausalLM")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


class ReportWriter(nn.Module):
    """Adapter and language model.

    Parameters
    ----------
    language_model : transformers causal model
    tokenizer : its tokeniser
    feature_size : int
        Of the flat embedding, or channels of the feature map.
    adapter : {"flat", "tokens"}
    n_tokens : int
        With `flat`: how many tokens the embedding becomes.
    prompts : sequence of str
        With `flat`: prompts that have adapter weights of their own; none: one adapter for all.
    lora_rank : int
        0 trains the whole language model; more freezes it and trains LoRA matrices of that rank on
        peft's default targets (paper: 512, alpha 16, dropout 0.1).
    """

    def __init__(
        self, language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, feature_size: int, *,
        adapter: str = "flat", n_tokens: int = 8, prompts: Sequence[str] = (), lora_rank: int = 0,
        lora_alpha: int = 16, lora_dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if adapter not in ADAPTERS:
            raise ValueError(f"adapter must be one of {ADAPTERS}; got {adapter!r}")
        hidden = cast("nn.Embedding", language_model.get_input_embeddings()).embedding_dim
        self.tokenizer, self.kind, self.n_tokens = tokenizer, adapter, n_tokens
        self.number = {p: i for i, p in enumerate(prompts)}
        n_out = n_tokens * max(len(prompts), 1) if adapter == "flat" else 1
        self.adapter = nn.Linear(feature_size, hidden * n_out)
        self.language_model, self.lora_rank = language_model, lora_rank
        self.lora_alpha, self.lora_dropout = lora_alpha, lora_dropout
        if lora_rank:
            self.add_lora(lora_rank, lora_alpha, lora_dropout)

    def add_lora(self, rank: int, alpha: int = 16, dropout: float = 0.1) -> None:
        """Freeze the language model and train low-rank matrices beside its projections."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            bias="none",
            task_type="CAUSAL_LM",
            fan_in_fan_out=self.language_model.config.model_type == "gpt2",  # its layers are Conv1D
        )
        self.language_model = cast("PreTrainedModel", get_peft_model(self.language_model, config))

    def prefix(self, features: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """(B, F) or (B, n, F) features → (B, n_tokens, hidden)."""
        out = self.adapter(features)
        if self.kind == "tokens":
            return out
        out = out.view(len(features), max(len(self.number), 1), self.n_tokens, -1)
        which = [self.number.get(p, 0) for p in prompts]
        return out[torch.arange(len(out)), torch.tensor(which)]

    def loss(
        self, features: torch.Tensor, prompts: Sequence[str], texts: Sequence[str], *,
        max_length: int = 1024,
    ) -> torch.Tensor:  # fmt: skip
        """Mean cross-entropy of the texts' tokens, their end included, after features and prompt.

        Prompt and text are cut at `max_length` tokens (in the paper image tokens share these), and at
        what the language model has positions for.

        Parameters
        ----------
        features : (B, F) or (B, n, F) tensor
        prompts, texts : sequence of B str
        """
        end = self.tokenizer(END, add_special_tokens=False)["input_ids"]
        heads = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        bodies = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        n_image = features.shape[1] if self.kind == "tokens" else self.n_tokens
        positions = getattr(self.language_model.config, "max_position_embeddings", max_length)
        limit = min(max_length, positions - n_image)
        if limit < max(map(len, heads)) + 16:
            raise ValueError(
                f"the language model has {positions} positions: {n_image} image tokens and a prompt of "
                f"{max(map(len, heads))} leave no room for a text. Take a model with more, or adapter='flat'."
            )
        rows = [(h, (h + b + end)[:limit]) for h, b in zip(heads, bodies, strict=True)]
        longest = max(len(r) for _, r in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        target = torch.full((len(rows), longest), -100)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, (head, row) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            target[i, len(head) : len(row)] = torch.tensor(row[len(head) :])
            mask[i, : len(row)] = 1
        ids, target, mask = (t.to(features.device) for t in (ids, target, mask))
        words = self.language_model.get_input_embeddings()(ids)
        # Most large models are in half precision.
        image = self.prefix(features, prompts).to(words.dtype)
        seen = torch.ones(image.shape[:2], dtype=torch.long, device=image.device)
        silent = torch.full(image.shape[:2], -100, device=image.device)
        return self.language_model(
            inputs_embeds=torch.cat([image, words], 1),
            attention_mask=torch.cat([seen, mask], 1),
            labels=torch.cat([silent, target], 1),
        ).loss

    @torch.inference_mode()
    def write(
        self, features: torch.Tensor, prompts: Sequence[str], *, max_new_tokens: int = 128,
        repetition_penalty: float = 1.2,
    ) -> list[str]:  # fmt: skip
        """Greedy decoding, one beam; texts are cut at `###`.

        Parameters
        ----------
        features : (B, F) or (B, n, F) tensor
        prompts : sequence of B str
            Of one length in tokens each call, so that nothing is padded between image and text.

        Returns
        -------
        list of B str
        """
        self.eval()
        ids = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        if len({len(i) for i in ids}) != 1:
            raise ValueError(
                "prompts of one call must be equally long; write one section at a time"
            )
        ids_here = torch.tensor(ids, device=features.device)
        words = self.language_model.get_input_embeddings()(ids_here)
        image = self.prefix(features, prompts).to(words.dtype)
        generate = cast("Callable[..., torch.Tensor]", self.language_model.generate)
        out = generate(
            inputs_embeds=torch.cat([image, words], 1),
            attention_mask=torch.ones(
                (len(ids), image.shape[1] + words.shape[1]), dtype=torch.long, device=image.device
            ),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=repetition_penalty,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer(END, add_special_tokens=False)["input_ids"][-1],
        )
        texts = self.tokenizer.batch_decode(out, skip_special_tokens=False)
        return [t.split(END)[0].replace("<pad>", "").strip() for t in texts]
