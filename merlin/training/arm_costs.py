"""What runs of pretraining took: studies, parameters, memory, time; read from what they left."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.run import read_csv
from merlin.training.checkpoint import load_weights, read_facts
from merlin.training.cost import saved_for_backward

# Settings that change the image tower; others leave its cost as it is.
NETWORK = {"depth", "network", "stem", "stem_depth_stride", "pool", "width"}


def costs(pretraining: Path, arms: Mapping[str, dict | None], seed: int) -> pd.DataFrame:
    """Parameters, memory and time of one run an arm.

    Parameters
    ----------
    pretraining : path
        Folder of the runs, `<arm>-<seed>/`.
    arms : mapping of str to dict
        What each changes.
    seed : int

    Returns
    -------
    DataFrame
        `arm, parameters` (of the image tower), `saved_mb` (what one study leaves for the backward
        pass), `seconds_per_step` (median), `seconds`, `changes_network`.
    """
    rows = []
    for name, changes in arms.items():
        folder = pretraining / f"{name}-{seed}"
        model, facts = load_weights(folder / "weights.safetensors")
        log = read_csv(folder / "log.csv")
        shape = facts["grid"]["shape"]
        rows.append(
            dict(
                arm=name,
                parameters=sum(p.numel() for p in model.encode_image.parameters()),
                saved_mb=saved_for_backward(model.encode_image, shape) / 1e6,
                seconds_per_step=log["seconds"].median(),
                seconds=log["seconds"].sum(),
                changes_network=name == "reference" or bool(NETWORK & set(changes or {})),
            )
        )
    return pd.DataFrame(rows)


def learning_curves(pretraining: Path, seeds: Mapping[str, Iterable[int]]) -> pd.DataFrame:
    """Validation AUROC of the phecode head while arms learn: `arm, step, value`, means over seeds.

    Parameters
    ----------
    pretraining : path
        Folder of the runs, `<arm>-<seed>/log.csv`.
    seeds : mapping of str to iterable of int
        By arm.
    """
    logs = [
        read_csv(pretraining / f"{arm}-{s}" / "log.csv").assign(arm=arm)
        for arm, own in seeds.items()
        for s in own
    ]
    seen = pd.concat(logs).dropna(subset="val_phecode_auroc")
    means = seen.groupby(["arm", "step"], sort=False)["val_phecode_auroc"].mean()
    return means.rename("value").reset_index()


def effort(
    pretraining: Path, regimes: Mapping[str, Mapping[int, str]], seeds: Iterable[int],
    batch_size: int,
) -> pd.DataFrame:  # fmt: skip
    """What the runs of a scaling law took: `regime, size, steps, times each study was seen, minutes`.

    Parameters
    ----------
    pretraining : path
        Folder of the runs, `<name>-<seed>/log.csv`.
    regimes : mapping of str to mapping of int to str
        From `run.scaling_sizes`.
    seeds : iterable of int
        Minutes are the mean over them.
    batch_size : int
    """
    seeds, rows = list(seeds), []
    for regime, sizes in regimes.items():
        for size, name in sizes.items():
            logs = [read_csv(pretraining / f"{name}-{s}" / "log.csv") for s in seeds]
            steps = len(logs[0])
            minutes = float(np.mean([log["seconds"].sum() for log in logs])) / 60
            rows.append((regime, size, steps, steps * batch_size / size, minutes))
    columns = ["regime", "size", "steps", "times each study was seen", "minutes"]
    return pd.DataFrame(rows, columns=columns)


def budgets(pretraining: Path, trained: Mapping[str, dict]) -> pd.DataFrame:
    """What each arm may learn from, and what it took: for who compares arms that had unequal steps.

    Parameters
    ----------
    pretraining : path
        Folder of the runs.
    trained : mapping of str to dict
        Settings of `02_pretraining`, by run.

    Returns
    -------
    DataFrame
        `steps, studies drawn` (with repeats), `training studies, minutes` (of all steps, reading and
        validation within them), by arm; the last two are blank before it has run.
    """
    rows = {}
    for name, how in trained.items():
        steps, folder = how["n_steps"], pretraining / name
        rows[name] = {"steps": steps, "studies drawn": steps * how["batch_size"]}
        rows[name] |= {"training studies": np.nan, "minutes": np.nan}
        if (folder / "weights.safetensors").exists():
            n = read_facts(folder / "weights.safetensors")["n"]["studies"]
            minutes = read_csv(folder / "log.csv")["seconds"].sum() / 60
            rows[name] |= {"training studies": n, "minutes": minutes}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")
