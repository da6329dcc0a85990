"""Render what papermill ran into a static folder: `python -m merlin.site.build default site`.

Nothing is executed: Sphinx makes pages of executed notebooks, figures with their tables and provenance, and
the docs, as `docs/site/` says. They open from disk without a server and ask nothing of the network. Nothing
is written or removed but what is the site's.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from merlin import run
from merlin.words import NAME
from merlin.words import shown as in_one_line

SOURCES = Path(__file__).parents[2] / "docs" / "site"
MARK = ".merlin-site"  # what the builder wrote, sha256 and path a line; nothing else is removed


def executed_notebooks(base: Path) -> dict[str, Path]:
    """Executed notebooks in reading order: name → path; arms after the notebook's main one."""
    names = sorted(p.stem for p in run.NOTEBOOKS.glob("*.ipynb"))
    profile = run.load_profile(base.name)
    sweep = set(run.sweep_arms(profile)) | set(run.sweep_runs(profile))
    found = {}
    for path in sorted(base.glob("*.ipynb")):
        name, _, arm = path.stem.partition("-")
        is_inside = path.resolve().is_relative_to(base.resolve())
        if NAME.fullmatch(path.stem) and is_inside and name in names and arm not in sweep:
            found[path.stem] = path
    return dict(sorted(found.items(), key=lambda x: (x[0].partition("-")[0], "-main" not in x[0])))


def _ours(out: Path) -> list[Path]:
    """Files of a folder if a former call wrote each of them, and none was changed since; the mark last.

    Raises
    ------
    FileExistsError
        Naming what is not ours.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise FileExistsError(f"{out} is no folder. Choose another one.")
    mark, written = out / MARK, {}
    if mark.is_file() and not mark.is_symlink():
        lines = mark.read_text(errors="replace").splitlines()
        written = {out / name: sha for sha, _, name in (x.partition("  ") for x in lines)}
    found = sorted(out.rglob("*"))
    ours = [p for p in found if p in written and not p.is_symlink() and p.is_file()
            and run.file_hash(p) == written[p]] + [mark] * bool(written)  # fmt: skip
    strange = sorted(set(found) - set(ours) - {folder for p in ours for folder in p.parents})
    if strange:
        raise FileExistsError(
            f"{out} holds {len(strange)} files that no site of ours brought, or that were changed since, as "
            f"{in_one_line(strange[0].relative_to(out))}. Choose another folder, or move them away."
        )
    return ours


def build(profile_name: str, out: str | Path) -> int:
    """Make the site of a finished run; returns the number of pages.

    Raises
    ------
    FileNotFoundError
        If the profile has not been run.
    """
    base = run.ROOT / "runs" / run.load_profile(profile_name)["profile"]
    if not executed_notebooks(base):
        raise FileNotFoundError(
            f"runs/{profile_name}/ holds no executed notebook. Run make figures PROFILE={profile_name} "
            "first."
        )
    _ours(out := Path(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as part:
        made = Path(part) / "site"
        render(profile_name, Path(part), made)
        written = sorted(p for p in made.rglob("*") if p.is_file())
        lines = [f"{run.file_hash(p)}  {p.relative_to(made)}\n" for p in written]
        (made / MARK).write_text("".join(lines))
        former = _ours(out)
        for path in former:
            path.unlink()
        for folder in sorted(
            {f for p in former for f in p.parents if f.is_relative_to(out)}, reverse=True
        ):
            folder.rmdir()
        made.replace(out)
    return sum(p.suffix == ".html" for p in written)


def render(profile_name: str, work: Path, made: Path) -> None:
    """Let Sphinx write the pages of a profile's run into a new folder, by way of another one."""
    from sphinx.application import Sphinx
    from sphinx.errors import ExtensionError

    (work / "sources").mkdir()
    try:
        app = Sphinx(
            work / "sources", SOURCES, made, work / "doctrees", "html", status=None,
            confoverrides={"merlin_profile": profile_name},
        )  # fmt: skip
        app.build()
    except ExtensionError as error:  # what went wrong in `docs/site/`, in its own words
        raise error.orig_exc or error from None


def main(argv: list[str] | None = None) -> int:
    """Command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("profile")
    parser.add_argument("out")
    args = parser.parse_args(argv)
    began = time.time()
    try:
        n = build(args.profile, args.out)
    except (OSError, run.ProfileError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(
        f"{n} pages in {args.out}/, {time.time() - began:.0f} s. Open {args.out}/index.html.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
