"""Where things lie: the checkout, its notebooks and profiles, and the folder of each profile's run."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"


def located(path: str | Path) -> str:
    """A path of a profile, from the repository's root; one from the notebooks' folder if it is there."""
    for base in (ROOT, NOTEBOOKS):
        if (base / path).exists():
            return str(base / path)
    return str(path)


def folder(profile: str) -> Path:
    """`runs/<profile>/`, made if missing."""
    path = ROOT / "runs" / profile
    path.mkdir(parents=True, exist_ok=True)
    return path


def upstream(path: str | Path, notebook: str) -> Path:
    """`path`, or an error that names the notebook which makes it."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path} is missing. "
            f"Run notebooks/{notebook}.ipynb first (or `make figures`, which runs all in order)."
        )
    return path
