"""Each notebook in a real JupyterLab: opened, all cells run from the menu, twice; a figure, no error.

Runs on the smoke profile, in copies of the notebooks, after `make figures PROFILE=smoke`.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from merlin import run

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted(p.stem for p in run.NOTEBOOKS.glob("*.ipynb"))
MINUTES = 4  # a notebook may take


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab and the folder of notebook copies that it serves."""
    if not (run.ROOT / "runs" / "smoke" / "16_claims.ipynb").exists():
        pytest.skip("the smoke profile has not been run: make figures PROFILE=smoke")
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        text = (run.NOTEBOOKS / f"{name}.ipynb").read_text()
        (folder / f"{name}.ipynb").write_text(
            text.replace('profile = \\"default\\"', 'profile = \\"smoke\\"')
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=",
               "--ServerApp.log_level=ERROR"]  # fmt: skip
    home = tmp_path_factory.mktemp("home")
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(home), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
                        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}  # fmt: skip
    server = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
    yield address, folder
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_all_cells_from_the_menu(chromium, lab, name):
    address, folder = lab
    context = chromium.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.get_by_text(re.compile(r"\| Idle$")).first.wait_for(timeout=90_000)  # in the status bar
    time.sleep(2)
    path = folder / f"{name}.ipynb"
    n = len(_code(path))
    for already in (0, n):  # the second time in the same kernel, on what the first has left
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
        code = _wait_until_done(page, path, already)
        outputs = [o for c in code for o in c.outputs]
        assert [o.evalue for o in outputs if o.output_type == "error"] == []
        assert any("image/png" in o.get("data", {}) for o in outputs)
    context.close()


def _wait_until_done(page, path: Path, already):
    """Save until every code cell has run since or one has failed; returns the code cells."""
    end = time.time() + 60 * MINUTES
    while time.time() < end:
        page.keyboard.press("Control+s")
        time.sleep(4)
        code = _code(path)
        failed = any(o.output_type == "error" for c in code for o in c.outputs)
        if failed or all((c.execution_count or 0) > already for c in code):
            page.keyboard.press("Control+s")
            time.sleep(1.5)
            return _code(path)
    raise AssertionError(f"{path.name} did not finish within {MINUTES} minutes")


def _code(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
