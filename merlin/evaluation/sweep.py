"""The arms of the sweep in words, and what each of them can be judged by."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.run import read_yaml

SENTENCES = Path(__file__).parent / "arms_in_words.yaml"


def sentences(arms: Mapping[str, dict | None]) -> pd.DataFrame:
    """A sentence an arm; one that has none is told by its settings.

    Parameters
    ----------
    arms : mapping of str to dict
        What each changes of `02_pretraining`.

    Returns
    -------
    DataFrame
        `what it does`, by arm.
    """
    known = read_yaml(SENTENCES)
    said = {
        a: known.get(a, ", ".join(f"{k} = {v}" for k, v in (changes or {}).items()))
        for a, changes in arms.items()
    }
    return pd.Series(said, name="what it does").to_frame().rename_axis("arm")


def text_of(trained: Mapping[str, dict]) -> dict[str, str]:
    """What each arm's training paired with images.

    Parameters
    ----------
    trained : mapping of str to dict
        Settings of each arm's pretraining.

    Returns
    -------
    dict of str to {"sentences", "whole", "none"}
        `whole` where reports were not split, `none` where none was read.
    """
    return {
        a: "none"
        if h["supervision"] == "ehr"
        else "sentences"
        if h["report_splitting"]
        else "whole"
        for a, h in trained.items()
    }


def by_run(judged: Mapping[tuple[str, int], Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """`arm, seed, metric, value` of every run, from `ablations.evaluate`."""
    rows = [
        dict(arm=a, seed=s, metric=m, value=v[0])
        for (a, s), found in judged.items()
        for m, v in found.items()
    ]
    return pd.DataFrame(rows)


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The differences of `ablations.compare`, each with its interval in one column, for reading."""
    gaps = table[(table["kind"] == "difference") & (table["status"] == "ok")]
    said = [f"[{r.low:+.3f}, {r.high:+.3f}]" for r in gaps.itertuples()]
    columns = ["label", "reference", "metric", "value", "interval", "by_seed"]
    return gaps.assign(interval=said)[columns]
