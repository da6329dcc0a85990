"""Profiles: the parameters of every notebook, as `notebooks/profiles/NAME.yaml` hold them.

`default.yaml` is complete and documents each key; the others extend it. Unknown names and values of
another kind are errors that name the nearest one, all at once.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from merlin.run import places
from merlin.words import NAME, Refusal, shown

TIER_NOTES = {
    "phantom": "synthetic phantom cohort, not a clinical result",
    "embeddings": "embeddings read from a file",
    "full": "full tier",
}


SMALL = 1000  # studies: sizes up to this are trained one after the other in one process
_SEEDED = re.compile(r"(.+)-seed(0|[1-9]\d{0,8})")  # the name of a profile with another seed


class ProfileError(Refusal):
    """A profile or a notebook parameter that does not exist, or is not what it should be."""


class _PlainLoader(yaml.SafeLoader):
    """YAML in which nothing stands for what is written elsewhere: ten lines of aliases make a billion values."""

    n_deep = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, self.n_deep = self.peek_event(), self.n_deep + 1
        odd = "nested too deeply" if self.n_deep > 20 else ""
        if isinstance(event, yaml.AliasEvent):
            odd = f"an alias, *{event.anchor}. Write out what it stands for"
        elif len(getattr(event, "value", "")) > 2000:
            odd = f"a value of {len(event.value):,} characters. Expected 2,000 at most"
        if odd:
            raise yaml.MarkedYAMLError(problem=odd, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.n_deep -= 1
        return node


def read_yaml(path: str | Path, most_kb: int = 64) -> Any:
    """Values of a YAML file that anybody may have written.

    Raises
    ------
    ProfileError
        With file and line, of what is no YAML, too large, nested or long, or an alias.
    """
    path = Path(path)
    if (n_kb := path.stat().st_size >> 10) > most_kb:
        raise ProfileError(f"{path.name}: {n_kb:,} kB. Expected {most_kb} at most.")
    try:
        return _PlainLoader(path.read_bytes()).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # a date or number that is none is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ProfileError(
            f"{path.name}{where}: {getattr(error, 'problem', '') or error}."
        ) from None
    except (AttributeError, LookupError, TypeError, OverflowError):  # of !!bool x, !!timestamp x
        raise ProfileError(f"{path.name}: a value that its tag (!!…) does not fit.") from None


def nearest(name: object, known: Iterable[object]) -> str:
    """` (nearest: NAME).` for an error message, or `.` if nothing is like it."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (nearest: {close[0]})." if close else "."


def load_profile(name: str) -> dict:
    """Read a profile with everything it extends filled in.

    `NAME-seed7` is the profile NAME with 7 for its `seed`: the same cohort, other trainings, a folder
    of its own.

    Returns
    -------
    dict
        `profile`, `tier`, `seed`, `cohort_seed`, `main_seeds`, `expected`, `arms`, `sweep`, and one dict
        of parameters per notebook.

    Raises
    ------
    ProfileError
        Naming every unknown profile, section or key with its nearest real one.
    """
    is_word, seed = NAME.fullmatch(str(name)), None
    path = places.PROFILES / f"{name}.yaml"
    if is_word and not path.is_file() and (seeded := _SEEDED.fullmatch(str(name))):
        path, seed = places.PROFILES / f"{seeded[1]}.yaml", int(seeded[2])
    if not is_word or not path.is_file():
        names = sorted(p.stem for p in places.PROFILES.glob("*.yaml"))
        raise ProfileError(
            f"No profile {name!r}{nearest(name, names)} Profiles are {', '.join(names)}, "
            f"in {places.PROFILES.relative_to(places.ROOT)}/."
        )
    full = read_yaml(places.PROFILES / "default.yaml")
    problems = _fill_in(full, read_yaml(path) or {})
    if problems:
        raise ProfileError(
            f"{path.relative_to(places.ROOT)}: {len(problems)} problem{'s'[: len(problems) != 1]}\n  "
            + "\n  ".join(problems)
        )
    return {"profile": name, **full} | ({} if seed is None else {"seed": seed})


def _fill_in(full: dict, own: object) -> list[str]:
    """Put a profile's own values into the default ones; returns what is wrong with them."""
    if not isinstance(own, dict):
        return [_misfit("the file", own, full)]
    problems = []
    for key, value in own.items():
        is_section = isinstance(full.get(key), dict) and key != "arms"
        if odd := _odd(key, key, value, full):
            problems.append(odd)
        elif not is_section:
            full[key] = value
        for inner, v in (value or {}).items() if is_section and not odd else ():
            if odd := _odd(f"{key}.{inner}", inner, v, full[key]):
                problems.append(odd)
            else:
                full[key][inner] = v
    if full["tier"] not in TIER_NOTES:
        problems.append(
            f"tier: {full['tier']!r}{nearest(full['tier'], TIER_NOTES)} Expected one of {', '.join(TIER_NOTES)}."
        )
    known = [k for k in full if k[:2].isdigit()]
    odd_names = [n for n in full.get("notebooks") or () if n not in known]
    problems += [f"notebooks: {n}: unknown{nearest(n, known)}" for n in odd_names]
    return problems + _arm_problems(full)


def _odd(where: str, key: object, value: object, known: dict) -> str:
    """Why a key or its value can't stand beside the default ones; empty if it can."""
    if key not in known:
        return f"{where}: unknown{nearest(key, known)}"
    return _misfit(where, value, known[key])


def _arm_problems(full: dict) -> list[str]:
    """What is wrong with the names of arms, and with what they change of 02_pretraining."""
    trained, sweep = full.get("02_pretraining", {}), full.get("sweep", {})
    arms = [("arms", a, c) for a, c in full["arms"].items()]
    arms += [("sweep.arms", a, c) for a, c in (sweep.get("arms") or {}).items()]
    names = [name for _, name, _ in arms]
    said = "names of arms are letters, digits, '_', '-' and '.', 48 at most"
    problems = [
        f"{place}.{shown(name)}: {said}"
        for place, name, _ in arms
        if not isinstance(name, str) or not NAME.fullmatch(name)
    ]
    for place, name, changes in [*arms, ("sweep", "base", sweep.get("base"))]:
        where = f"{place}.{name}"
        if changes is not None and not isinstance(changes, dict):
            problems.append(f"{where}: {_kind(changes)}. Expected keys and values.")
            continue
        own = {"seeds": sweep.get("seeds") or [1]} if place == "sweep.arms" else {}
        for key, value in (changes or {}).items():
            if odd := _odd(f"{where}.{key}", key, value, trained | own):
                problems.append(odd)
            elif key == "init_from" and value and value not in names:
                problems.append(f"{where}.{key}: no arm {value!r}{nearest(value, names)}")
    return problems


def _kind(value: object) -> str:
    """What a YAML value is, in words."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number" if abs(value) < 1e15 else "no finite number"
    words = {bool: "true or false", str: "text", list: "a list", dict: "keys and values"}
    return words.get(type(value), "nothing" if value is None else "a date")


def _misfit(where: str, value: Any, like: Any) -> str:
    """Why a value is of another kind than the default's, `like`; empty if it may stand in its place."""
    if value is None and not like:
        return ""
    kind = "a number" if like is None else _kind(like)
    if _kind(value) != kind:
        hint = f", as {like}" if like and not isinstance(like, dict) else ""
        return f"{where}: {shown(repr(value), 80)}. Expected {kind}{hint}."
    if kind == "a list":  # empty by default: texts, or lists of them
        parts = [(where, v, like[0] if like else [] if isinstance(v, list) else "") for v in value]
    elif kind == "keys and values" and where in ("01_cohort.n_patients", "01_dataset.columns"):
        inner = next(iter(like.values()), "")
        parts = [(f"{where}.{k}", v, inner) for k, v in value.items()]
    else:
        return ""
    return next((odd for part in parts if (odd := _misfit(*part))), "")


def main_runs(profile: dict) -> dict[str, int]:
    """Trainings of the main arm: name → seed. `main` itself, then `main-1` for each of `main_seeds`."""
    seed = profile["seed"]
    return {"main": seed} | {f"main-{s}": seed + s for s in profile["main_seeds"]}


def sweep_runs(profile: dict) -> dict[str, dict]:
    """The small pretrainings of a profile's `sweep`: every arm with each of its seeds, every size too.

    Parameters
    ----------
    profile : dict
        From `load_profile`.

    Returns
    -------
    dict of str to dict
        Run name, as `staged-2` or `once_250-1`, → its settings: the base, the arm's, the seed.
    """
    arms = sweep_arms(profile) | scaling_arms(profile)
    return {
        f"{arm}-{seed}": changes | {"seed": profile["seed"] + seed}
        for arm, changes in arms.items()
        for seed in sweep_seeds(profile, arm)
    }


def sweep_arms(profile: dict) -> dict[str, dict]:
    """The arms of a profile's `sweep`, without seeds: name → settings."""
    sweep = profile["sweep"]
    arms = {a: changes or {} for a, changes in sweep["arms"].items()}
    return {
        a: sweep["base"] | {k: v for k, v in changes.items() if k != "seeds"}
        for a, changes in arms.items()
    }


def sweep_seeds(profile: dict, arm: str) -> list[int]:
    """Seeds of an arm of the sweep, its own or those of all; a size has those of all."""
    sweep = profile["sweep"]
    return (sweep["arms"].get(arm) or {}).get("seeds", sweep["seeds"])


def scaling_sizes(profile: dict) -> dict[str, dict[int, str]]:
    """Runs of `13_scaling_laws`: regime → numbers of training studies → name of the run.

    In the first every study is seen once, in the second all sizes take as many steps. Where both are
    the same, so is the run.
    """
    sweep = profile["sweep"]
    batch = sweep["base"].get("batch_size", profile["02_pretraining"].get("batch_size", 1))
    once = {int(n): f"once_{int(n)}" for n in sweep["sizes"]}
    fixed = {n: once[n] if n // batch == sweep["fixed_steps"] else f"steps_{n}" for n in once}
    return {"every study once": once, "equal steps": fixed}


def scaling_names(profile: dict, sizes: Sequence[int]) -> list[str]:
    """Runs of these sizes in both regimes."""
    return list(dict.fromkeys(of[n] for n in sizes for of in scaling_sizes(profile).values()))


def scaling_jobs(profile: dict) -> list[list[int]]:
    """Sizes that are trained in one process, largest first: a process starts as long as small ones take."""
    sizes = sorted((int(n) for n in profile["sweep"]["sizes"]), reverse=True)
    small = [n for n in sizes if n <= SMALL]
    return [[n] for n in sizes if n > SMALL] + ([small] if small else [])


def scaling_arms(profile: dict) -> dict[str, dict]:
    """Settings of these runs by name: those of the sweep's base, `n_studies` and `n_steps`."""
    sweep, found = profile["sweep"], {}
    batch = sweep["base"].get("batch_size", profile["02_pretraining"].get("batch_size", 1))
    for sizes in scaling_sizes(profile).values():
        for n, name in sizes.items():
            steps = n // batch if name.startswith("once") else sweep["fixed_steps"]
            found[name] = sweep["base"] | {"n_studies": n, "n_steps": steps}
    return found


def trainings(profile: dict, arm: str) -> dict[str, int]:
    """What one run of `02_pretraining` trains: name → seed. An arm of the sweep has several seeds."""
    if arm in (of_main := main_runs(profile)):
        return {arm: of_main[arm]}
    of_sweep = {
        n: s["seed"] for n, s in sweep_runs(profile).items() if arm in (n, n.rpartition("-")[0])
    }
    return of_sweep or {arm: profile["seed"]}
