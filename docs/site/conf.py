"""How Sphinx makes the site; `make site` calls it through `merlin.site.build`, which names the profile.

A page loads what lies beside it and nothing else, and no script or style stands in it: the policy is in
`templates/layout.html`. What the theme would write into pages as scripts is in `static/frame.js`.
"""

import shutil
import sys
from html import escape
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

sys.path.insert(0, str(Path(__file__).parent))

import pages

from merlin import run

project = html_title = "Merlin companion"
author = ""
extensions = ["myst_nb"]
suppress_warnings = ["myst.header"]  # a cell may begin with a heading of any level
nb_execution_mode = "off"
myst_disable_syntax = ["html_block", "html_inline", "myst_role", "link", "image", "autolink"]
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["frame.js", "tables.js"]
smartquotes = False
html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navbar_persistent": [],
    "primary_sidebar_end": [],
    "footer_content_items": ["tier"],
}
html_sidebars = {"**": ["navbar-logo", "search-button-field", "sbt-sidebar-nav"]}
html_copy_source = html_use_index = html_show_search_summary = False
html_favicon = None
# Of the theme and not needed: texts of other languages, maps of scripts, a megabyte of icons as scripts.
UNUSED = ("_static/locales", "_static/scripts/*.map", "_static/styles/*.map", "_static/*.html",
          "_static/scripts/fontawesome.js*", "_static/images", "_sources", ".buildinfo", "objects.inv")  # fmt: skip


def write_sources(app: Sphinx, config: Config) -> None:
    """The pages' sources, and what every page says of the run's tier."""
    profile = run.load_profile(config.merlin_profile)
    note = run.TIER_NOTES[profile["tier"]]
    config.html_context["tier"] = f"Profile {profile['profile']}, tier {profile['tier']}: {note}."
    if profile["tier"] == "phantom":
        config.html_theme_options["announcement"] = (
            "Synthetic phantom cohort, not a clinical result"
        )
    config.html_extra_path = [str(Path(app.srcdir) / pages.FILES)]
    pages.write_all(Path(app.srcdir), profile)


def harden(app: Sphinx, pagename: str, _template: str, context: dict, _doctree: object) -> None:
    """The viewer's scripts on its page, none that the theme writes into one, and a title that is words."""
    if pagename == "viewer":
        app.add_js_file("../studies.js")
        app.add_js_file("viewer.js", loading_method="defer")
    context["script_files"][:] = [s for s in context["script_files"] if getattr(s, "filename", s)]
    context["pagetitle"] = escape(context.get("pagetitle", ""))  # the theme writes it as it is


def remove_unused(app: Sphinx, _error: Exception | None) -> None:
    """Take out what no page loads."""
    for pattern in UNUSED:
        for path in Path(app.outdir).glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def setup(app: Sphinx) -> None:
    """Connect the above to Sphinx."""
    app.add_config_value("merlin_profile", "default", "env", str)
    app.connect("config-inited", write_sources)
    app.connect("html-page-context", harden, priority=900)
    app.connect("build-finished", remove_unused)
