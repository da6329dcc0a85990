"""The site in a browser, from disk: no error, no request, a table that sorts, a viewer that scrolls."""

import os
import sys
import time
from pathlib import Path

import pytest

from merlin import run
from merlin.site import build

sys.path.insert(0, str(Path(__file__).parents[1]))  # for test_site

pytestmark = pytest.mark.browser
SIZES = {"desktop": (1200, 900), "phone": (390, 800)}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    profile = next((p for p in ("default", "smoke") if (run.ROOT / "runs" / p).is_dir()), None)
    if profile is None:
        pytest.skip("nothing has been run: make figures PROFILE=smoke")
    out = tmp_path_factory.mktemp("site") / "site"
    began = time.monotonic()
    build.build(profile, out)
    assert time.monotonic() - began < 60
    return out


@pytest.fixture
def page(chromium, site, request):
    """A page that notes console errors and requests that leave the disk."""
    size = getattr(request, "param", "desktop")
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.problems = []
    page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else page.problems.append(r.url),
    )
    yield page
    context.close()


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_every_page_opens_without_error_request_or_sideways_scroll(page, site):
    wide = []
    for path in sorted(site.rglob("*.html")):
        if "source" in path.relative_to(site).parts:
            continue
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"):
            wide.append(path.name)
    assert page.problems == []
    assert wide == []


def test_ledger_sorts_both_ways_and_filters(page, site):
    page.goto((site / "ledger.html").as_uri())
    cells = "() => [...document.querySelectorAll('#claims tbody tr:not([hidden])')].map(r => r.cells[4].dataset.value)"
    for _, order in ((0, 1), (1, -1)):
        page.locator("#claims th:nth-child(5) button").click()
        values = [float(v) for v in page.evaluate(cells) if v]
        assert values == sorted(values, reverse=order < 0)
    page.get_by_label("Filter").fill("segmentation")
    shown = page.evaluate("document.querySelectorAll('#claims tbody tr:not([hidden])').length")
    assert (
        0
        < shown
        < len(page.evaluate("[...document.querySelectorAll('#claims tbody tr')].map(() => 1)"))
    )
    assert page.locator(".count").inner_text() == f"{shown} rows"
    assert page.problems == []


def test_viewer_scrolls_by_wheel_and_keyboard_and_shows_masks(page, site):
    page.goto((site / "viewer.html").as_uri())
    picture = lambda: page.evaluate("document.getElementById('axial').toDataURL()")  # noqa: E731
    said = page.locator("#axial-said")
    first, slice_ = picture(), said.inner_text()
    page.locator("#axial").hover()
    page.mouse.wheel(0, 100)
    assert said.inner_text() != slice_
    assert picture() != first
    before = said.inner_text()
    page.locator("#axial-slice").focus()
    page.keyboard.press("ArrowRight")
    assert said.inner_text() != before
    for view in page.locator("#view option").all_inner_texts():
        page.locator("#view").select_option(label=view)
        for kind in ("#organs", "#findings"):
            assert changed_by_boxes(page, kind), (view, kind)
    page.locator("#study").select_option(index=1)
    assert len(page.locator("#report").inner_text()) > 100
    assert page.problems == []


def changed_by_boxes(page, kind):
    """Whether some box of a kind, switched on, changes some slice of the axial picture."""
    slider = page.locator("#axial-slice")
    last = int(slider.get_attribute("max"))
    for at in range(0, last + 1, max(1, last // 12)):
        slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(at))
        plain = page.evaluate("document.getElementById('axial').toDataURL()")
        boxes = page.locator(f"{kind} input")
        for i in range(boxes.count()):
            boxes.nth(i).check()
        shown = page.evaluate("document.getElementById('axial').toDataURL()")
        for i in range(boxes.count()):
            boxes.nth(i).uncheck()
        if shown != plain:
            return True
    return False


def test_ledger_sorts_by_keyboard(page, site):
    page.goto((site / "ledger.html").as_uri())
    page.locator("#claims th:nth-child(5) button").focus()
    page.keyboard.press("Enter")
    cells = "() => [...document.querySelectorAll('#claims tbody tr')].map(r => r.cells[4].dataset.value)"
    values = [float(v) for v in page.evaluate(cells) if v]
    assert values == sorted(values)


def test_every_link_of_the_real_site_leads_to_a_file_and_an_anchor(site):
    from test_site import broken_links

    assert broken_links(site) == []


def test_dark_mode_is_dark_and_the_keyboard_reaches_the_content(chromium, site):
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    shade = "getComputedStyle(document.body).backgroundColor"
    assert max(int(v) for v in page.evaluate(shade)[4:-1].split(",")) < 60
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"
    page.get_by_role("button", name="Color mode").click()
    page.get_by_role("button", name="Light", exact=True).click()
    assert min(int(v) for v in page.evaluate(shade)[4:-1].split(",")) > 200
    context.close()


def test_search_finds_words_of_pages_as_one_types_and_on_its_page(page, site):
    page.goto((site / "docs" / "limits.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("phecode")
    found = page.locator("#pst-search-dialog a", has_text="Glossary")
    found.wait_for(timeout=5000)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=phecode")
    page.locator("#search-results a", has_text="Glossary").first.click()
    assert page.url.split("?")[0].endswith("docs/glossary.html")
    assert page.problems == []


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A site of what strangers wrote."""
    import test_site

    top = tmp_path_factory.mktemp("hostile")
    test_site.project(top)
    with pytest.MonkeyPatch.context() as patch:
        test_site.made_by(patch, top)
        assert build.main(["default", str(top / "site")]) == 0
    return top / "site"


@pytest.mark.parametrize("policy", [True, False], ids=["policy", "no_policy"])
def test_what_strangers_wrote_does_not_run_even_without_the_policy(chromium, hostile, policy):
    """The page's own policy aside, the sanitiser holds alone."""
    context = chromium.new_context(bypass_csp=not policy)
    page, asked = context.new_page(), []
    page.on("request", lambda r: asked.append(r.url))
    page.on("dialog", lambda d: asked.append(d.message))
    for name in ("notebooks/06_retrieval", "notebooks/09_report_generation", "gallery", "ledger"):
        page.goto((hostile / f"{name}.html").as_uri())
        assert page.evaluate("window.was_run") is None
        assert (
            page.evaluate(
                "document.querySelectorAll('article :is(script, iframe, form, style)').length"
            )
            == 0
        )
    page.keyboard.press("Control+k")
    page.keyboard.type("script")
    page.locator("#pst-search-dialog a").first.wait_for(timeout=5000)  # titles are words there too
    assert page.evaluate("window.was_run") is None
    assert [u for u in asked if not u.startswith((hostile.as_uri(), "data:"))] == []
    context.close()


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS names no folder")
@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_screenshots_to_look_at(page, site, request):
    out = Path(os.environ["SCREENSHOTS"])
    out.mkdir(parents=True, exist_ok=True)
    size = request.node.callspec.params["page"]
    for name in (
        "index",
        "gallery",
        "ledger",
        "viewer",
        "cohort",
        "notebooks/04_zero_shot_findings",
    ):
        if (site / f"{name}.html").exists():
            page.goto((site / f"{name}.html").as_uri())
            page.screenshot(path=out / f"{name.replace('/', '-')}-{size}.png")
