"""What a newcomer meets before anything is installed: each failing of the setup leads on by itself."""

import hashlib
import io
import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "scripts" / "setup.sh"
GOOD = 'case "$*" in *"pip --version"*) exit 0;; *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";; '
STANDINS = {  # of python: what it does, what is said
    "old": ('[ "$1" = -c ] && exit 1; echo Python 3.9.2', "Python 3.9.2 is too old: 3.11 or newer"),
    "no venv": (
        'case "$*" in *"-m venv"*) echo "No module named venv" >&2; exit 1;; esac',
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
        'case "$*" in *pip*) exit 1;; *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";; esac',
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


@pytest.mark.parametrize("build", ["nvidia-cublas==13", "filelock"])
def test_a_cuda_build_of_torch_gets_its_parts_by_hash_too(tmp_path, build):
    """Which build pip took is read off what it installed."""
    about = ".venv/lib/python3.12/site-packages/torch-2.13.0.dist-info"
    python = (
        'echo "$*" >> calls; '
        + GOOD
        + f'*locks/torch.txt*) mkdir -p {about}; echo "Requires-Dist: {build}" > {about}/METADATA;; esac'
    )
    code, said = set_up(tmp_path, python)
    assert code == 0, said
    calls = [c for c in (tmp_path / "calls").read_text().splitlines() if " locks/" in c]
    locks = [c.split(" locks/")[1] for c in calls]
    cuda = ["cuda.txt"] if "nvidia" in build else []
    assert locks == ["build.txt", "torch.txt", "packages.txt", *cuda]
    assert all("--require-hashes --no-deps --no-build-isolation" in c for c in calls)


def test_a_list_that_lacks_a_package_is_seen(tmp_path):
    python = GOOD + '*"pip check"*) echo "a 1.0 requires b, which is not installed."; exit 1;; esac'
    code, said = set_up(tmp_path, python)
    assert code == 1
    assert "a 1.0 requires b, which is not installed." in said


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


def package(folder, kind):
    """A package of one module as a wheel or as a source archive that leaves a mark when it is built."""
    if kind == "wheel":
        path = folder / "tiny-1.0-py3-none-any.whl"
        about = "tiny-1.0.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("tiny.py", "")
            wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
        return path
    path = folder / "tiny-1.0.tar.gz"
    mark = f"open({str(folder / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup(name='tiny', version='1.0')\n"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("setup.py", mark), ("PKG-INFO", "Name: tiny\nVersion: 1.0\n")):
            member = tarfile.TarInfo(f"tiny-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("kind", "lock", "right"),
    [
        ("wheel", "build", False),
        ("wheel", "torch", False),
        ("source", "packages", False),
        ("source", "packages", True),
    ],
)
def test_a_package_of_another_hash_stops_setup_before_it_runs(tmp_path, kind, lock, right):
    """The true pip at one step, on an index of one package; it only says what it would install."""
    path = package(tmp_path, kind)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = digest if right else digest[::-1]
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / f"{lock}.txt").write_text(f"tiny==1.0 --hash=sha256:{known}\n")
    python = GOOD + f'*locks/{lock}.txt*) exec {shlex.quote(sys.executable)} "$@";; esac'
    how = dict(
        PIP_DRY_RUN="1", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path), PIP_CONFIG_FILE=os.devnull
    )
    code, said = set_up(tmp_path, python, **how)
    assert (tmp_path / "ran").exists() == right
    assert (tmp_path / ".venv" / "ready").exists() == right
    assert code == (0 if right else 1), said
    if not right:
        assert f"Expected sha256 {known}" in said
        assert "is not the file that locks/ knows by its sha256, and was not installed" in said


OFFLINE = SETUP.parent / "offline.sh"


def test_offline_has_this_machine_and_nothing_else():
    """A server of its own answers, an address of the world has no way to it; or it says that it can't be."""
    code = (
        "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(s.getsockname(), 5)\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 5)\nexcept OSError as e:\n    print(e)"
    )
    done = subprocess.run(
        ["bash", str(OFFLINE), sys.executable, "-c", code], capture_output=True, text=True,
        env=os.environ | {"PYTHON": sys.executable}, check=False, timeout=60,
    )  # fmt: skip
    made = (
        subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    )
    assert done.returncode == (0 if made else 1)
    if made:
        assert done.stdout.splitlines() == [
            "Network interfaces: lo",
            "[Errno 101] Network is unreachable",
        ]


def test_offline_says_where_it_cannot_be_and_runs_nothing(tmp_path):
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    done = subprocess.run(
        ["bash", str(OFFLINE), "touch", str(tmp_path / "ran")], capture_output=True, text=True,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Not run: no network namespace can be made here" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_no_package_of_the_locks_makes_every_kernel_wait():
    """papermill and each kernel import jsonschema, which takes seconds longer where this one is there."""
    said = (
        "import sys, nbformat; print([m for m in ('lark', 'rfc3987_syntax') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", said], text=True).strip() == "[]"
