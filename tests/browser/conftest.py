"""A headless Chromium for tests that need one; they are run by `make browser`, not by `make test`."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """The browser; CHROMIUM names it, else the system's is taken."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e .[browser]"
    )
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
