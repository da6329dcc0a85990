"""How long a run will still take: the profile's expectation, corrected by the first training steps seen."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

# Of a progress bar time gone and speed: `main: 12%|█ | 150/1200 [01:10<08:12, 2.13it/s]`, or `1.20s/it`.
_BAR = re.compile(r"\[(?:(\d+):)?(\d+):(\d+)<[^,\]]*, *([\d.]+)(it/s|s/it)")
FIRST = "02_pretraining-main.pace"  # the latest line of the main arm's bar, in the run's partial/
ENOUGH = 60.0  # seconds of steps before they count


def step_seconds(line: str) -> tuple[float, float] | None:
    """Seconds a step and seconds seen, from a progress bar's line; None where it holds none."""
    found = _BAR.search(line)
    if not found or not float(found[4]):
        return None
    hours, minutes, seconds = (int(v or 0) for v in found.groups()[:3])
    speed = float(found[4])
    return 1 / speed if found[5] == "it/s" else speed, 3600.0 * hours + 60 * minutes + seconds


def watch(base: Path, expected: dict, ended: Event, *, every: float = 15.0) -> None:
    """Say once, when a minute of the main arm's steps has been seen, how long the run will take here.

    Parameters
    ----------
    base : path
        Of the run.
    expected : dict
        `minutes` of the whole run, and the `step_seconds` of the main arm on the machine where that was
        measured; 0 where it was not.
    ended : Event
        Set when the run is over.
    """
    file, began = base / "partial" / FIRST, time.time()
    while not ended.wait(every):
        if not file.exists() or file.stat().st_mtime < began:
            continue
        found = step_seconds(file.read_text(errors="replace"))
        if found and found[1] >= ENOUGH:
            sys.stdout.write(said(expected, found[0], (time.time() - began) / 60))
            sys.stdout.flush()
            return


def said(expected: dict, seconds: float, gone: float) -> str:
    """The corrected estimate, in words.

    Parameters
    ----------
    expected : dict
    seconds : float
        A step of the main arm, here.
    gone : float
        Minutes since the run began.
    """
    slower = seconds / expected["step_seconds"]
    total = expected["minutes"] * slower
    return (
        f"A step of the main arm takes {seconds:.2f} s here, {slower:.1f} times what the estimate took: "
        f"about {total:.0f} minutes in all, {max(total - gone, 0):.0f} left.\n"
    )


def beside(base: Path, expected: dict, run: Callable[[], int]) -> int:
    """Run something to its end while `watch` listens; its code."""
    ended = Event()
    if expected.get("step_seconds"):
        Thread(target=watch, args=(base, expected, ended), daemon=True).start()
    try:
        return run()
    finally:
        ended.set()
