"""`merlin weights`: an official checkpoint into safetensors, or weights of ours back."""

from pathlib import Path

import merlin
from merlin.commands.out import refuse_existing, say
from merlin.data.phecodes import read_phenotypes
from merlin.files import copy
from merlin.training import checkpoint, official, official_files


def convert(
    path: str,
    out: Path,
    *,
    text_folder: str,
    phecodes: str | None,
    export: bool,
    lm_folder: str | None,
    revision: str,
    sha256: str,
    hub_cache: str,
    overwrite: bool,
) -> int:
    """Fetch, convert, copy or export one file, by what it is; returns the exit code."""
    refuse_existing(out, overwrite)
    if out.resolve().is_relative_to(Path(merlin.__file__).parent):
        raise ValueError(f"{out} lies inside the package; choose another folder")
    source = Path(path)
    if path.startswith("hub:"):
        kind = path.removeprefix("hub:")
        if kind not in official_files.FILES:
            raise ValueError(f"{path}: expected hub: and one of {', '.join(official_files.FILES)}")
        source = official_files.download(kind, hub_cache, revision=revision, sha256=sha256)
    if not source.is_file():
        raise FileNotFoundError(f"no file at {source}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if export:
        kind = official.export(source, out, lm_folder=lm_folder or None)
        said = f"written in the layout of the official {kind} file"
    elif source.suffix == ".safetensors":
        checkpoint.read_facts(source)  # is it one of ours?
        copy(source, out)
        checkpoint.link_text_folder(out, checkpoint.text_folder(source))
        said = "copied: these are weights of ours"
    else:
        names = read_phenotypes(phecodes)["phecode"] if phecodes else None
        folder = str(Path(text_folder).resolve()) if text_folder else ""
        said = official.convert(source, out, text_folder=folder, phecodes=names)
    say(f"{source.name}: {said}. Wrote {out}.")
    return 0
