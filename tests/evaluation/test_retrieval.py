"""Retrieval: closed form against drawn pools, ties and equal reports, sizes that can't be."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from merlin.evaluation import retrieval


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def pair():
    rng = np.random.default_rng(5)
    image = unit(rng.normal(size=(60, 16)))
    return image, unit(image + 0.35 * rng.normal(size=(60, 16)))


def test_expected_recall_is_the_mean_over_every_pool():
    better, n, pool, k = np.array([2]), 6, 3, 1
    # The partner is candidate 0; candidates 1 and 2 beat it. Pools hold two of the five others.
    hits = [not {1, 2} & set(others) for others in combinations(range(1, 6), pool - 1)]
    assert retrieval.expected_recall(better, n, pool, k)[0] == pytest.approx(np.mean(hits))


def test_drawn_pools_scatter_about_the_closed_form(pair):
    group = np.arange(60)
    better = retrieval.better_counts(*pair, group)
    expected = retrieval.expected_recall(better, 60, 20, 1).mean()
    drawn = retrieval.drawn_recall(*pair, group, 20, (1,), n_draws=200, seed=1)[0]
    assert drawn.mean() == pytest.approx(expected, abs=0.01)
    assert drawn.std() > 0


def test_counts_equal_a_plain_sort_whatever_the_chunk(pair):
    image, text = pair
    near = image @ text.T
    plain = [(row > row[i]).sum() for i, row in enumerate(near)]
    for chunk in (1, 7, 512):
        found = retrieval.better_counts(image, text, np.arange(60), chunk=chunk)
        assert found.tolist() == plain


def test_equal_reports_are_right_and_ties_count_half():
    query = unit(np.eye(3))
    candidate = unit(np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0]]))
    assert (
        retrieval.better_counts(query[:1].repeat(3, 0), candidate, np.zeros(3)).tolist() == [0] * 3
    )
    apart = retrieval.better_counts(query[:1].repeat(3, 0), candidate, np.arange(3))
    assert apart.tolist() == [1, 1, 1]  # two ties: one counts as better


def evaluate(image, text, **more):
    n = len(image)
    options = dict(
        text_name="findings", model="m", split="test", pools=(8, 500), n_resamples=50, seed=1
    )
    return retrieval.evaluate(
        image, text, np.arange(n), np.array([f"p{i}" for i in range(n)]), **options | more
    )


def test_perfect_vectors_find_all_and_random_ones_chance():
    image = unit(np.random.default_rng(0).normal(size=(400, 64)))
    table, _ = evaluate(image, image)
    ok = table[table["status"] == "ok"]
    assert (ok["value"] == 1).all()
    other = unit(np.random.default_rng(1).normal(size=(400, 64)))
    table, _ = evaluate(image, other, ranks=(1, 8))
    row = table[(table["metric"] == "recall@1 of 8") & (table["label"] == "image to findings")]
    assert row["value"].item() == pytest.approx(1 / 8, abs=0.04)
    assert row["chance"].item() == 1 / 8
    assert table[table["metric"] == "recall@8 of 8"]["value"].eq(1).all()


def test_pool_larger_than_the_set_is_not_evaluated(pair):
    table, _ = evaluate(*pair)
    rows = table[table["pool"] == 500]
    assert (rows["status"] == "not evaluated").all()
    assert rows["value"].isna().all()
    assert rows["reason"].str.contains("larger than the 60 studies").all()
    assert set(table.loc[table["status"] == "ok", "pool"]) == {8, 60}


def test_studies_without_a_text_sit_out(pair):
    image, text = pair[0], pair[1].copy()
    text[:5] = np.nan
    table, _ = evaluate(image, text)
    assert set(table.loc[table["status"] == "ok", "n_studies"]) == {55}
    table, _ = evaluate(image, np.full_like(text, np.nan))
    assert (table["status"] == "not evaluated").all()
    assert "0 of 60" in table["reason"].iloc[0]


def test_memory_is_a_chunk_of_queries():
    image = unit(np.random.default_rng(0).normal(size=(3000, 32)))
    tracemalloc.start()
    retrieval.better_counts(image, image, np.arange(3000), chunk=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000  # bytes: the full matrix of floats would be four times that


def test_a_pool_as_large_as_the_set_keeps_its_own_name(pair):
    table, _ = evaluate(*pair, pools=(8, len(pair[0])))
    names = set(table["metric"])
    assert {f"recall@1 of {len(pair[0])}", "recall@1 of all", "recall@1 of 8"} <= names
    one = table[table["label"] == table["label"].iloc[0]].set_index("metric")["value"]
    assert one["recall@1 of all"] == one[f"recall@1 of {len(pair[0])}"]


def slow_expectation(better, ties, n, pool, k):
    """Every order of the tied ones, every pool: the mean of hits."""
    each = [
        retrieval.expected_recall(np.array([better + j]), n, pool, k)[0] for j in range(ties + 1)
    ]
    return np.mean(each)


@pytest.mark.parametrize(("better", "ties"), [(0, 0), (0, 3), (2, 4), (5, 5), (0, 10), (10, 0)])
def test_tied_candidates_share_their_ranks(better, ties):
    for pool, k in ((4, 1), (4, 3), (11, 1), (11, 8)):
        found = retrieval.expected_recall(
            np.array([better, 0]), 11, pool, k, ties=np.array([ties, 0])
        )
        assert found[0] == pytest.approx(slow_expectation(better, ties, 11, pool, k), abs=1e-12)
        assert found[1] == retrieval.expected_recall(np.array([0]), 11, pool, k)[0]


@pytest.mark.parametrize("kind", ["images", "texts", "both"])
def test_a_constant_encoder_has_chance_in_expectation_and_in_drawn_pools(pair, kind):
    """It had 1e-24 where chance is 0.016: ties counted as beaten."""
    image, text = (a.copy() for a in pair)
    for name, vectors in (("images", image), ("texts", text)):
        if kind in (name, "both"):
            vectors[:] = vectors[0]
    table, _ = evaluate(image, text, pools=(8, 20), ranks=(1, 5))
    ok = table[table["status"] == "ok"]
    # One product's last bit may differ between columns, so that a few ties are broken.
    np.testing.assert_allclose(ok["value"], ok["chance"], rtol=0.25)
    exact = np.ones((60, 4), np.float32)
    table, _ = evaluate(exact, exact, pools=(8, 20), ranks=(1, 5))
    for column in ("value", "low", "high", "pool_low", "pool_high"):
        np.testing.assert_allclose(table[column], table["chance"], rtol=1e-9)


@pytest.mark.parametrize("pool", [0, 1, -3])
def test_a_pool_of_nobody_is_refused(pair, pool):
    with pytest.raises(ValueError, match=f"pools must hold two candidates or more; got {pool}"):
        evaluate(*pair, pools=(8, pool))
