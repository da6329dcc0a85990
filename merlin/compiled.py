"""numba's `njit` with its cache on disk, or without one where it may be written nowhere."""

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable:
    """Compile a function, and keep the machine code for the next process where that is possible.

    numba refuses at once, on import, where neither the source's folder nor the user's cache may be
    written: a read-only installation, an unwritable home. There each process compiles for itself.
    """

    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**options)(function)

    return compiled
