"""`python -m merlin.run ACTION NAME`: run and check profiles, and what the workflow does between notebooks.

figures PROFILE         run its workflow, as `make figures` does
check PROFILE           check a profile
compare PROFILE         hold its results against the committed ones, quantity by quantity
bring PROFILE           note which files of the user's it reads, for a workflow started by hand
take KIND PROFILE FILE  put the user's weights or embeddings in the workflow's place
keep FILE TARGET        move a finished notebook to its place without this machine's paths
explain FILE            say where an executed notebook failed
"""

import argparse
import sys
from collections.abc import Sequence

from merlin.run import ahead, own, rerun, workflow
from merlin.run.profile import ProfileError, load_profile


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the workflow; returns the exit code."""
    top = argparse.ArgumentParser(
        prog="python -m merlin.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "action", choices=("explain", "keep", "check", "compare", "figures", "bring", "take")
    )
    top.add_argument("name", help="an executed notebook, a profile, or (take) what to take")
    top.add_argument("more", nargs="*", help=argparse.SUPPRESS)  # keep, take: the target
    top.add_argument("--cores", type=int, default=2)
    kinds = ("data", "weights", "embeddings")
    for kind in kinds:
        top.add_argument(f"--{kind}", default="", help="of the full and embeddings tiers")
    args = top.parse_args(argv)
    try:
        return _do(args.action, args.name, args.more, args.cores, {k: vars(args)[k] for k in kinds})
    except ProfileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. The same command resumes.\n")
        return 130


def _do(action: str, name: str, more: list[str], cores: int, given: dict[str, str]) -> int:
    if action == "explain":
        sys.stderr.write(workflow.explain(name) + "\n")
        return 1
    if action == "keep":
        workflow.keep(name, *more)
        return 0
    if action == "take":
        return own.take(name, *more)
    if action == "figures":
        return workflow.figures(name, cores, given)
    values = load_profile(name)
    if action == "check" and (asked := ahead.problems(values)):
        raise ProfileError("\n".join(asked))
    if action == "compare":
        sys.stdout.write(rerun.told(name))
    if action == "bring":
        own.bring(name, own.own_files(values["tier"], given, trains=own.trains(values)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
