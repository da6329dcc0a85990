"""Which files a folder holds, by one rule for everybody who reads folders.

Links are followed, since data sets are often links, but each real folder and file once: a link back
to a folder above ends there. What an operating system or a CD's burner left (`._` doubles, hidden
files, `DICOMDIR`, `__MACOSX`) is left out. Whatever is not listed is counted, and said.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = {"dicomdir", "thumbs.db", "desktop.ini", "autorun.inf"}


@dataclass(frozen=True)
class Tree:
    """What `walk` found.

    Attributes
    ----------
    files : tuple of Path
        Sorted; as reached, links unresolved.
    left_out : dict of str to int
        What was not listed, by kind, with how often.
    outside : tuple of Path
        Links among them that lead out of the folder.
    """

    files: tuple[Path, ...]
    left_out: dict[str, int]
    outside: tuple[Path, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was left out and where links led, without file names."""
        said = [f"{n} {what} left out." for what, n in sorted(self.left_out.items())]
        if self.outside:
            said.append(f"{len(self.outside)} links lead outside the folder; they were followed.")
        return tuple(said)


def walk(folder: str | Path) -> Tree:
    """List the files below a folder.

    Parameters
    ----------
    folder : path

    Returns
    -------
    Tree
        Empty where there is no such folder.
    """
    folder = Path(folder)
    root, seen = os.path.realpath(folder), set()
    left_out, files, outside = Counter[str](), list[Path](), list[Path]()

    def enter(place: Path) -> None:
        real = os.path.realpath(place)
        if real in seen:
            left_out["links to what stands elsewhere in the folder"] += 1
            return
        seen.add(real)
        try:
            entries = sorted(place.iterdir())
        except OSError:
            left_out["folders that may not be read"] += 1
            return
        for entry in entries:
            if kind := _nobodys(entry):
                left_out[kind] += 1
                continue
            if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
                outside.append(entry)
            if entry.is_dir():
                enter(entry)
            elif entry.is_file():
                real = os.path.realpath(entry)
                if real in seen:
                    left_out["links to what stands elsewhere in the folder"] += 1
                else:
                    seen.add(real)
                    files.append(entry)
            else:
                left_out["broken links and special files"] += 1

    if folder.is_dir():
        enter(folder)
    return Tree(tuple(sorted(files)), dict(left_out), tuple(outside))


def _nobodys(entry: Path) -> str:
    """What an entry is that belongs to no data set; empty if it may."""
    if entry.name.startswith("._") or entry.name == "__MACOSX":
        return "macOS doubles"
    if entry.name.startswith("."):
        return "hidden files"
    return "files of a CD or system" if entry.name.lower() in _SYSTEM else ""
