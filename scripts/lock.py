"""Remake the pins (constraints.txt) and their hashes (locks/) from the package index, with uv.

    python -m pip install uv && python scripts/lock.py

Every dependency of pyproject.toml is resolved for every platform and Python version, within the pins
that stand. To move a version, change its pin, or delete it to take the newest. Read what changed
(`git diff --stat`, then the pins) before it is committed: what is locked is what everybody will run.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Files of locks/, and whose lines they take: first match. scripts/setup.sh says when each is installed.
LOCKS = {
    "build": "setuptools",
    "torch": "torch",
    "cuda": "nvidia-.*|cuda-.*|triton",
    "browser": "playwright|pyee",
    "packages": ".*",
}
# What jsonschema takes to check the form of IRIs, and does without: to import it compiles a grammar, which
# took 2.5 seconds in the process of every notebook.
LEFT_OUT = ("lark", "rfc3987-syntax")
# Builds of torch==2.13.0 that are not on PyPI: the CPU build of download.pytorch.org, CPython 3.11, x86_64.
OTHER_BUILDS = ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",)
UV = ("uv", "pip", "compile", "pyproject.toml", "--extra", "dev", "--extra", "browser", "--universal",
      "--constraint", "constraints.txt", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")  # fmt: skip


def main() -> None:
    """Resolve, then write each line to its lock and its pin to the constraints."""
    said = subprocess.run(UV, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if said.returncode:
        sys.exit("uv could not resolve the pins (see above); nothing was written.")
    locked = re.findall(r"^\S.*(?:\n .*)*\n", said.stdout, re.MULTILINE)
    texts = dict.fromkeys(LOCKS, "# Made by scripts/lock.py; pins stand in constraints.txt.\n")
    for lines in locked:
        if (name := lines.split("==")[0]) in LEFT_OUT:
            continue
        lock = next(k for k, names in LOCKS.items() if re.fullmatch(names, name))
        texts[lock] += lines
    texts["torch"] = texts["torch"].rstrip() + "".join(
        f" \\\n    --hash=sha256:{digest}" for digest in OTHER_BUILDS
    )
    (ROOT / "locks").mkdir(exist_ok=True)
    for lock, text in texts.items():
        (ROOT / "locks" / f"{lock}.txt").write_text(text.rstrip() + "\n")
    pins = "".join(lines.split("\n")[0].rstrip(" \\") + "\n" for lines in locked)
    head = (ROOT / "constraints.txt").read_text().split("\n\n")[0]
    (ROOT / "constraints.txt").write_text(f"{head}\n\n{pins}")


if __name__ == "__main__":
    main()
