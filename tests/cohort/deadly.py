"""Work for processes that some studies kill; a module of its own, so that they import little else."""

import os
import signal
from pathlib import Path

from merlin.readers import survey

DEADLY = ("AC0003", "AC0005")


def dies_at(study, *, grid, cache_dir):
    """As `survey.look_at`, in a process that two studies kill where the cache is called so."""
    if study[0] in DEADLY and "fatal" in Path(cache_dir).name:
        os.kill(os.getpid(), signal.SIGKILL)
    return survey.look_at(study, grid=grid, cache_dir=cache_dir)
