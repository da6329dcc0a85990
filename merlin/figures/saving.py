"""A notebook's figure: drawn from its tables, and kept with them and with where they came from."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from matplotlib.figure import Figure

from merlin import run
from merlin.figures import style


def save_figure(
    settings: SimpleNamespace,
    name: str,
    tables: dict[str, pd.DataFrame],
    draw: Callable,
    *,
    inputs: Iterable[str | Path] = (),
    resampled: str = "",
    **facts: object,
) -> Figure:
    """Draw a figure and write picture, tables and sidecar to `runs/<profile>/figures/`.

    Figures of another arm than the main one go to `figures/arms/`, with the arm in their name.

    Parameters
    ----------
    settings : SimpleNamespace
        From `run.settings`.
    name : str
    tables : dict of str to DataFrame
        As `style.save_figure` takes them.
    draw : callable
        Tables and facts → Figure.
    inputs : files
        What the tables were computed from; the sidecar holds their hashes.
    resampled : str
        What a 95 % interval resamples, as `patients`; empty where there is none of that kind.
    **facts
        `n`, `caption`, and whatever else the drawing or a reader of the sidecar needs.
    """
    if resampled:
        kind = f"95% interval, {settings.n_resamples:,} resamples of {resampled}"
        facts["interval"] = kind
    arm = getattr(settings, "arm", "main")
    name = name if arm == "main" else f"arms/{name}-{arm}"
    about = run.provenance(settings, list(inputs), **facts)
    return style.save_figure(run.folder(settings.profile) / "figures", name, tables, about, draw)
