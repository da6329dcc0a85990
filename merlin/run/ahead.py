"""What a profile of the full tier needs, asked before hours pass: all at once, each with its mend."""

import os
import shutil
import subprocess
from pathlib import Path

from merlin.run import places
from merlin.run.notebook import PATHS
from merlin.words import shown


def problems(values: dict) -> list[str]:
    """What would stop a profile, or make it another experiment, after hours; empty: nothing known.

    Parameters
    ----------
    values : dict
        Of `load_profile`; other tiers than full are not asked.
    """
    if values["tier"] != "full":
        return []
    books = values["notebooks"] or [n for n in values if n[:2].isdigit()]
    found = []
    for book in books:
        for key, path in values.get(book, {}).items():
            if key not in PATHS or not isinstance(path, str) or not path or path.startswith("hub:"):
                continue
            if key == "text_folder" and values[book].get("text") != "longformer":
                continue  # of another tower's
            if not Path(places.located(path)).exists():
                found.append(
                    f"{book}.{key}: nothing at {shown(path)}. Mend the path in the profile."
                )
    start = values.get("02_pretraining", {})
    begins = start.get("weights_2d") or start.get("init_from") or start.get("from_random")
    if "02_pretraining" in books and not begins:
        found.append(
            "02_pretraining.weights_2d: none is named, so that the image tower would start from random "
            "weights, where the paper's starts from ImageNet's. Name a safetensors of a torchvision-style "
            "ResNet, or set from_random: true if that is what you want."
        )
    return found


def machine(values: dict) -> str:
    """What the machine has beside what the profile is expected to take, as a table in lines."""
    wanted = values["expected"]
    free = shutil.disk_usage(places.folder(values["profile"])).free / 1e9
    rows = [
        ("cores", f"{os.cpu_count()}", "as many as CORES says"),
        ("memory (GB)", _memory_gb(), f"{wanted['memory_gb']}"),
        ("disk (GB free)", f"{free:.0f}", f"{wanted['disk_gb']}, and the cache of your data"),
        ("GPU", _gpu(), "one large" if "GPU" in str(wanted.get("note")) else "helps"),
        ("hours", "", f"{wanted['minutes'] / 60:.1f} expected"),
    ]
    return "".join(f"  {name:15} {has:32} wanted: {asked}\n" for name, has, asked in rows)


def _memory_gb() -> str:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not say
        return "unknown"
    return f"{pages * size / 1e9:.0f}"


def _gpu() -> str:
    """Name and memory of each, of NVIDIA's."""
    if not (tool := shutil.which("nvidia-smi")):
        return "none found"
    ask = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=60).stdout
    return shown("; ".join(said.strip().splitlines()) or "none found", 60)
