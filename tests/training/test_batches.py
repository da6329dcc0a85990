"""Batches follow from seed and step; augmentation never mirrors; subsets keep rows together."""

import numpy as np
import pytest
import tiny_run
import torch

from merlin.training.data import augment, balanced_batch, batch_indices, load_volumes


def test_every_study_is_seen_once_an_epoch():
    for epoch in range(3):
        steps = range(4 * epoch, 4 * epoch + 4)
        seen = np.concatenate([batch_indices(12, 3, s, seed=7) for s in steps])
        assert sorted(seen) == list(range(12))


def test_tail_of_an_epoch_is_dropped_and_differs_between_epochs():
    dropped = []
    for epoch in range(10):
        seen = np.concatenate([batch_indices(11, 3, 3 * epoch + s, seed=7) for s in range(3)])
        assert len(set(seen)) == 9
        dropped.append(set(range(11)) - set(seen))
    assert len(set().union(*dropped)) > 4  # nobody is left out for ever


def test_batches_depend_on_seed_epoch_and_nothing_else():
    first = batch_indices(100, 10, 3, seed=7)
    np.random.seed(1)  # noqa: NPY002  a global seed must not matter
    np.testing.assert_array_equal(batch_indices(100, 10, 3, seed=7), first)
    assert (batch_indices(100, 10, 3, seed=8) != first).any()
    assert (batch_indices(100, 10, 13, seed=7) != first).any()


def test_too_few_studies_for_a_batch_say_both_numbers():
    with pytest.raises(ValueError, match="3 studies do not fill a batch of 4"):
        batch_indices(3, 4, 0, seed=7)


@pytest.mark.parametrize("keep", [[4, 1], np.array([0, 1, 0, 0, 1, 0], bool)])
def test_subset_keeps_all_of_a_study_together(keep):
    data = tiny_run.studies(6)
    part = data.subset(keep)
    for k, i in enumerate(np.flatnonzero(keep) if np.asarray(keep).dtype == bool else keep):
        assert part.study_ids[k] == data.study_ids[i]
        assert part.patient_ids[k] == data.patient_ids[i]
        assert part.findings[k] == data.findings[i]
        assert (part.sections[k] == data.sections[i]).all()
        np.testing.assert_array_equal(part.phecodes[k], data.phecodes[i])
        np.testing.assert_array_equal(part.volumes(k), data.volumes(i))
    assert len(part) == 2


def test_volumes_are_stacked_in_the_order_asked_for():
    data = tiny_run.studies(6)
    found = load_volumes(data, np.array([5, 0]))
    assert found.shape == (2, 1, 16, 16, 16)
    np.testing.assert_array_equal(found[0, 0], data.volumes(5))
    np.testing.assert_array_equal(found[1, 0], data.volumes(0))


def augmented(volume, seed, *, shift_voxels=0, noise=0.0, gain=0.0):
    rng = np.random.default_rng(seed)
    return augment(volume.clone(), rng, shift_voxels=shift_voxels, noise=noise, gain=gain)


def test_shift_moves_a_body_in_air_by_whole_voxels_and_never_mirrors():
    """An L-shaped body stays an L: its right arm is still on the right."""
    volume = torch.zeros(2, 1, 12, 12, 12)
    volume[:, 0, 4:8, 5, 6] = 1
    volume[:, 0, 7, 5:8, 6] = 2
    offsets = set()
    for seed in range(60):
        found = augmented(volume, seed, shift_voxels=2)
        before, after = (torch.nonzero(v[0, 0]) for v in (volume, found))
        offset = (after - before)[0]
        assert (after - before == offset).all()
        assert torch.equal(found[0], found[1])
        offsets.add(tuple(offset.tolist()))
    assert {shift for offset in offsets for shift in offset} == {-2, -1, 0, 1, 2}
    assert len(offsets) > 25


def test_body_at_the_border_does_not_come_in_on_the_other_side():
    """Legs that leave the lower edge must not appear above the lungs."""
    volume = torch.zeros(1, 1, 8, 8, 8)
    volume[..., 0] = 1
    for seed in range(20):
        assert not augmented(volume, seed, shift_voxels=2)[..., 4:].any()


def test_noise_and_gain_have_their_stated_spread():
    volume = torch.full((400, 1, 6, 6, 6), 0.5)
    noisy = augmented(volume, 7, noise=0.1)
    assert (noisy - volume).std().item() == pytest.approx(0.1, rel=0.05)
    gained = augmented(volume, 7, gain=0.2)
    factor = (gained / volume).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert factor[:, 0].std().item() == pytest.approx(0.2, rel=0.15)


def test_augmentation_is_a_function_of_its_generator():
    volume = torch.rand(2, 1, 6, 6, 6)
    options = dict(shift_voxels=1, noise=0.1, gain=0.1)
    first = augmented(volume, 7, **options)
    torch.manual_seed(3)
    assert torch.equal(augmented(volume, 7, **options), first)
    assert not torch.equal(augmented(volume, 8, **options), first)


def test_nothing_asked_for_changes_nothing():
    volume = torch.rand(2, 1, 6, 6, 6)
    assert torch.equal(augmented(volume, 7), volume)


@pytest.mark.parametrize(("share", "n_normal"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_balanced_batches_hold_the_share_of_normal_sections_asked_for(share, n_normal):
    abnormal = np.array([0.0] * 20 + [1.0] * 5 + [np.nan] * 30)
    index = balanced_batch(abnormal, np.arange(8), share, np.random.default_rng(1))
    assert (abnormal[index] == 0).sum() == n_normal
    assert (abnormal[index] == 1).sum() == 8 - n_normal  # drawn again where there are too few
    assert len(set(index[abnormal[index] == 0])) == n_normal


def test_batch_stays_where_a_kind_does_not_exist():
    index = balanced_batch(np.zeros(9), np.arange(4), 0.5, np.random.default_rng(1))
    np.testing.assert_array_equal(index, np.arange(4))
