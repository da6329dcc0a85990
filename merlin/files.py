"""Files written whole or not at all, and through no link that lies in the way."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A new temporary neighbour of `path`, with its ending, that takes its place if all goes well.

    For libraries that write to a name; its name cannot be foreseen, so no link can lie there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{path.name}")
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes files for the owner only; results are for whom the user's umask lets in.
        Path(name).chmod(0o666 & ~_UMASK)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A stream to a temporary neighbour of `path` that takes its place if all goes well."""
    with atomic_path(path) as part, part.open(mode) as stream:
        yield stream
