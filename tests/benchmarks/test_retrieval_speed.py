"""Retrieval of 5,000 volumes among 5,000 reports, in both directions, against a plain full sort."""

import time
import tracemalloc

import numpy as np
import pytest

from merlin.evaluation import retrieval

pytestmark = pytest.mark.slow
N, D = 5_000, 512


def test_all_pools_cost_less_than_sorting_the_whole_matrix():
    rng = np.random.default_rng(7)
    text = rng.normal(size=(N, D)).astype(np.float32)
    image = text + rng.normal(size=(N, D)).astype(np.float32)
    patients = rng.integers(0, 4_000, N)
    common = (np.arange(N), patients.astype(str))
    options = dict(text_name="findings", model="m", split="test", seed=1)
    start = time.perf_counter()
    table, _ = retrieval.evaluate(image, text, *common, **options)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    order = np.argsort(-(image @ text.T), axis=1)
    order_back = np.argsort(-(text @ image.T), axis=1)
    plain = time.perf_counter() - start
    tracemalloc.start()
    retrieval.better_counts(image, text, common[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"retrieval {ours:.1f} s, two full sorts {plain:.1f} s, peak {peak / 1e6:.0f} MB")
    assert len(order) == len(order_back) == N
    assert (table["status"] == "ok").all()
    assert ours < 2 * plain
    assert peak < 200e6
