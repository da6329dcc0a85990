"""The fuzz for as long as one likes, other inputs every time: `make fuzz MINUTES=30`.

Rounds over all readers, each in a process of its own; a reader may take 500 MB more than the process
has, and ten seconds an input. What breaks a promise, kills the process or takes longer is kept below
`runs/fuzz/` with its files, once a place. Ends with 1 where anything was found.
"""

import argparse
import multiprocessing
import pickle
import re
import resource
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st
from readers import READERS, Files, TooSlow, judge

MOST_BYTES, MOST_SECONDS = 500 << 20, 10
MOST_KEPT = 1 << 30  # bytes that making inputs may add to a process: Hypothesis remembers each
KEPT = Path(__file__).resolve().parents[2] / "runs" / "fuzz"


def round_of(name, number, seconds, known, now, told):
    """One reader for some seconds; (inputs, inputs read, find or None) goes to `told`.

    The last input stands in the file `now`, should this process be killed by it.
    """
    reader, ends, counts, found = READERS[name], time.monotonic() + seconds, [0, 0], []
    full = address_space() + MOST_KEPT
    signal.signal(signal.SIGPROF, too_slow)  # of this process's own time: others may work beside

    @seed(number)
    @settings(max_examples=10**6, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
              suppress_health_check=list(HealthCheck), report_multiple_bugs=False)  # fmt: skip
    @given(reader.inputs.map(Files), st.integers(0, reader.ways - 1))
    def fuzz(files, way):
        is_over = time.monotonic() > (found[-1] + seconds / 3 if found else ends)
        if is_over or (address_space() > full and not found):
            raise KeyboardInterrupt  # the one exception that Hypothesis passes on at once
        if sum(map(len, files.values())) > 1 << 20:
            return
        counts[0] += 1
        now.write_bytes(pickle.dumps((files, way)))
        with TemporaryDirectory(dir=now.parent) as folder:
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
            try:
                with limited_memory():
                    counts[1] += judge(reader, files, way, Path(folder))
            except AssertionError as error:
                said = str(error)
                kind = re.sub(r"[^A-Za-z_. :]+", "", said.split("\n")[0])[:70]
                if kind in known or (found and found[0] != kind):
                    return
                found[:] = kind, said, files, way, found[-1] if found else time.monotonic()
                raise
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)

    with suppress(AssertionError, KeyboardInterrupt):
        fuzz()
    told.put((*counts, found))


def too_slow(*_):
    raise TooSlow


def address_space():
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextmanager
def limited_memory():
    """Let a reader take so much more address space than this process has by now.

    Around the reader alone: what makes inputs keeps some of each, and that is no reader's.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def watched(name, number, seconds, known):
    """`round_of` in a process of its own: (inputs, inputs read, find)."""
    context = multiprocessing.get_context("fork")
    with TemporaryDirectory() as folder:
        now, told = Path(folder) / "now", context.SimpleQueue()
        process = context.Process(target=round_of, args=(name, number, seconds, known, now, told))
        process.start()
        while process.is_alive() and told.empty():
            process.join(1)
            if now.exists() and time.time() - now.stat().st_mtime > 12 * MOST_SECONDS:
                process.kill()  # in a library that no alarm interrupts
        if not told.empty():
            found = told.get()
            process.join()
            return found
        said = f"the process ended with {process.exitcode}, or hung"
        return 0, 0, (said, said, *(pickle.loads(now.read_bytes()) if now.exists() else ({}, 0)), 0)


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--readers", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument(
        "--seconds", type=float, default=15, help="of one reader in a round, at most"
    )
    args = parser.parse_args(argv)
    for name in args.readers:  # what is loaded or made on first use is so once, for all rounds
        reader = READERS[name]
        one = settings(database=None, max_examples=1, phases=[Phase.generate])
        good = find(reader.inputs.map(Files), lambda _: True, settings=one)
        for way in range(reader.ways):
            with TemporaryDirectory() as folder, suppress(AssertionError):
                judge(reader, good, way, Path(folder))
    ends, number = time.monotonic() + 60 * args.minutes, args.seed
    counts, finds = Counter(), {}
    while time.monotonic() < ends:
        for name in args.readers:
            if time.monotonic() > ends + args.seconds:
                break
            number += 1
            known = {kind for of, kind in finds if of == name}
            n, n_read, found = watched(name, number, args.seconds, known)
            counts[name, "inputs"] += n
            counts[name, "read"] += n_read
            if found:
                kind, said, files, way, _ = found
                home = KEPT / f"{name}-{number}"
                for file, raw in files.items():
                    (home / file).parent.mkdir(parents=True, exist_ok=True)
                    (home / file).write_bytes(raw)
                home.mkdir(parents=True, exist_ok=True)
                (home / "find.txt").write_text(f"{name}, way {way}: {said}\n")
                finds[name, kind] = home
                print(f"{name}, way {way}: {said[:300]}\n  {home}", flush=True)
    for name in args.readers:
        n = sum(of == name for of, _ in finds)
        of = f"{counts[name, 'inputs']:,} inputs, {counts[name, 'read']:,} read"
        print(f"{name}: {of}, {n} finds")
    return int(bool(finds))


if __name__ == "__main__":
    sys.exit(main())
