"""Scores of generated texts that need a language model."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Texts = Sequence[str] | np.ndarray


def bertscore(
    generated: Texts, reference: Texts, model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 32,
) -> np.ndarray:  # fmt: skip
    """(n,) float: BERTScore F1 with a Hugging Face encoder (torchmetrics; no rescaling, no idf).

    Name the encoder beside the number: another one gives another scale.
    """
    from torchmetrics.functional.text.bert import bert_score

    found = bert_score(
        [g or "." for g in generated],
        list(reference),
        model=model,
        user_tokenizer=tokenizer,
        truncation=True,
        max_length=256,
        batch_size=batch_size,
        num_threads=0,
        verbose=False,
    )
    return np.asarray(found["f1"], float).reshape(len(reference))


def radgraph_f1(generated: Texts, reference: Texts) -> np.ndarray:
    """(n,) float: RadGraph-F1 (partial) by the optional `radgraph` package.

    Raises
    ------
    RuntimeError
        If the package or its model is absent, with what to do.
    """
    try:
        from radgraph import F1RadGraph

        scorer = F1RadGraph(reward_level="partial")
    except (ImportError, OSError, ValueError) as error:
        raise RuntimeError(
            "RadGraph-F1 needs `pip install radgraph` and its model, which it downloads from the "
            f"Hugging Face hub on first use ({type(error).__name__})."
        ) from error
    _, each, _, _ = scorer(hyps=list(generated), refs=list(reference))
    return np.asarray(each, float)
