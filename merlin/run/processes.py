"""Processes that end when they should: workers with their parent, a workflow with the keyboard's signal."""

import os
import signal
import subprocess
from multiprocessing import connection, parent_process
from pathlib import Path
from threading import Thread


def end_with_parent() -> None:
    """Let this worker process end when the one that started it is gone, even killed.

    The initializer of every `ProcessPoolExecutor` here: its workers hold both ends of their queue, so
    that they finish their job and then wait for ever, gigabytes in hand.
    """
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def to_its_end(command: list[str], env: dict[str, str], *, cwd: Path | None = None) -> int:
    """Run Snakemake and return its code; Ctrl-C reaches it too, and it gets the time to stop its jobs."""
    interrupted = []
    # A handler, not an exception: that may come between any two lines. Snakemake has its own.
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    try:
        code = subprocess.Popen(command, cwd=cwd, env=env).wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return 130 if interrupted else code
