"""What a newcomer meets before anything is installed: each failing of the setup leads on by itself."""

import os
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "scripts" / "setup.sh"
GOOD = (
    'case "$*" in *"pip --version"*) exit 0;; *venv*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";; '
)
STANDINS = {  # of python: what it does, what is said
    "old": ('[ "$1" = -c ] && exit 1; echo Python 3.9.2', "Python 3.9.2 is too old: 3.11 or newer"),
    "no venv": (
        'case "$*" in *venv*) echo "No module named venv" >&2; exit 1;; esac',
        "apt-get install python3-venv",
    ),
    "no network": (
        GOOD + '*install*) echo "ERROR: Could not find a version that satisfies x"; exit 1;; esac',
        "Is there a network, and does pip reach a package index?",
    ),
    "disk fills": (
        GOOD + '*install*) echo "OSError: [Errno 28] No space left on device"; exit 1;; esac',
        "the disk is full. The environment needs 4.5 GB",
    ),
    "half made": (
        'case "$*" in *pip*) exit 1;; *venv*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";; esac',
        "as an interrupted setup leaves it. Remove it",
    ),
    "something else": (
        GOOD + '*install*) echo "error: strange"; exit 1;; esac',
        "the whole log is in",
    ),
}


def set_up(folder, python, **env):
    """Run the script in a folder with a stand-in for python; returns its code and what it said."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "python3").write_text(f"#!/bin/bash\n{python}\n")
    for name, text in env.pop("tools", {}).items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    outside = {k: v for k, v in os.environ.items() if k != "PYTHON"}
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SETUP), ".venv"], cwd=folder, env=outside | {"PATH": path} | env,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", STANDINS)
def test_each_failing_says_how_to_mend_it(tmp_path, kind):
    python, expected = STANDINS[kind]
    code, said = set_up(tmp_path, python)
    assert code == 1
    assert "Setup stopped: " in said
    assert expected in said
    assert not (tmp_path / ".venv" / "ready").exists()


def test_no_python_at_all_names_the_package(tmp_path):
    code, said = set_up(tmp_path, "exit 0", PYTHON="python3.99")
    assert code == 1
    assert "no 'python3.99' found. Install Python 3.11 or newer (Debian: apt-get install" in said


def test_a_disk_without_room_is_seen_before_anything_is_fetched(tmp_path):
    small = "echo head; echo '/dev/x 100 99 1200 99% /'"
    code, said = set_up(tmp_path, "exit 0", tools={"df": small})
    assert code == 1
    assert "only 1200 MB free here" in said
    assert not (tmp_path / ".venv").exists()


def test_a_good_one_ends_ready_in_a_folder_with_spaces(tmp_path):
    folder = tmp_path / "my work"
    folder.mkdir()
    code, said = set_up(folder, GOOD + "esac")
    assert code == 0, said
    assert "Environment ready in .venv" in said
    assert (folder / ".venv" / "ready").exists()
