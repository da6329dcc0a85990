"""Losses equal hand computation; equal texts don't pull on each other; unknown codes are silent."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from merlin.training.losses import contrastive_loss, membership_loss, phecode_loss


def by_hand(image, text, scale, ids):
    """Cross-entropy in NumPy against targets spread over equal texts, both directions."""
    logits = np.exp(scale) * image @ text.T
    same = np.array([[i == j for j in ids] for i in ids], float)
    target = same / same.sum(1, keepdims=True)

    def entropy(x):
        log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
        return -(target * log_p).sum(1).mean()

    return 0.5 * (entropy(logits) + entropy(logits.T))


def test_two_pairs_typed_out():
    """Logits [[2, 0], [0, 1]]: rows cost log(1 + e⁻²) and log(1 + e⁻¹), and so do columns."""
    image = torch.eye(2) * torch.tensor([[2.0], [1.0]])
    found = contrastive_loss(image, torch.eye(2), torch.tensor(0.0), torch.tensor([0, 1]))
    expected = (np.log(1 + np.exp(-2)) + np.log(1 + np.exp(-1))) / 2
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ids", [[0, 1], [4, 4], [0, 1, 2], [5, 3, 5], [1, 1, 1]])
def test_loss_equals_numpy_with_and_without_equal_texts(ids):
    rng = np.random.default_rng(7)
    image, text = rng.normal(0, 1, (2, len(ids), 4))
    found = contrastive_loss(
        torch.from_numpy(image), torch.from_numpy(text), torch.tensor(0.3), torch.tensor(ids)
    )
    assert found.item() == pytest.approx(by_hand(image, text, 0.3, ids), rel=1e-6)


def test_all_different_texts_give_clips_loss():
    generator = torch.Generator().manual_seed(7)
    image, text = (F.normalize(torch.randn(6, 5, generator=generator)) for _ in range(2))
    scale = torch.tensor(2.6593)
    logits = scale.exp() * image @ text.T
    expected = (
        F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))
    ) / 2
    torch.testing.assert_close(contrastive_loss(image, text, scale, torch.arange(6)), expected)


def test_identical_texts_cost_log_n_and_pull_on_nothing():
    generator = torch.Generator().manual_seed(7)
    image = F.normalize(torch.randn(5, 4, generator=generator)).requires_grad_()
    one = F.normalize(torch.randn(1, 4, generator=generator))
    text = one.repeat(5, 1).requires_grad_()
    loss = contrastive_loss(image, text, torch.tensor(1.0), torch.zeros(5, dtype=torch.long))
    loss.backward()
    # Image to text is uniform; text to image still prefers some image to others, symmetrically
    # for every copy of the text, and its target is uniform too.
    to_image = torch.log_softmax(np.e * image.detach() @ one[0], 0)
    expected = (np.log(5) - to_image.mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    # The gradient on the copies is one and the same: none is pushed away from another.
    torch.testing.assert_close(text.grad, text.grad[:1].repeat(5, 1))


def test_identical_texts_and_images_are_at_rest():
    image = F.normalize(torch.ones(5, 4)).requires_grad_()
    text = F.normalize(torch.ones(5, 4)).requires_grad_()
    scale = torch.tensor(1.0, requires_grad=True)
    loss = contrastive_loss(image, text, scale, torch.zeros(5, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(5), rel=1e-6)
    for gradient in (image.grad, text.grad, scale.grad):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_order_of_pairs_changes_no_loss():
    generator = torch.Generator().manual_seed(7)
    image, text = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    ids, turn = torch.tensor([0, 1, 1, 2, 0, 3]), torch.randperm(6, generator=generator)
    scale = torch.tensor(0.5)
    torch.testing.assert_close(
        contrastive_loss(image, text, scale, ids),
        contrastive_loss(image[turn], text[turn], scale, ids[turn]),
    )


def test_unknown_codes_take_no_part():
    nan = float("nan")
    logits = torch.tensor([[2.0, -1.0, 5.0], [0.5, 3.0, -4.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, nan], [nan, 1.0, nan]])
    loss = phecode_loss(logits, labels)
    loss.backward()
    # −log σ(2), −log(1 − σ(−1)), −log σ(3).
    expected = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(-3))])
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert (logits.grad != 0).tolist() == [[True, True, False], [False, True, False]]
    assert torch.isfinite(logits.grad).all()


def test_nothing_known_costs_nothing():
    logits = torch.tensor([[2.0]], requires_grad=True)
    loss = phecode_loss(logits, torch.tensor([[float("nan")]]))
    loss.backward()
    assert (loss.item(), logits.grad.item()) == (0, 0)


def test_membership_loss_is_clips_when_each_text_has_one_image():
    torch.manual_seed(1)
    image, text = (F.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    scale = torch.tensor(2.0)
    found = membership_loss(image, text, scale, torch.eye(5))
    torch.testing.assert_close(found, contrastive_loss(image, text, scale, torch.arange(5)))


def test_frequent_text_gains_nothing_by_being_frequent():
    """Where images tell nothing, equal similarities are the optimum, however common a text is."""
    member = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    image = F.normalize(torch.ones(4, 2), dim=1)
    text = (torch.ones(2, 2) / 2**0.5).requires_grad_()
    membership_loss(image, text, torch.tensor(0.0), member).backward()
    torch.testing.assert_close(text.grad, torch.zeros(2, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [2.66, 4.6])
def test_half_precision_leaves_losses_and_gradients_as_they_are(scale):
    """Embeddings come rounded out of autocast; what is made of them is not rounded again."""
    rng = np.random.default_rng(0)
    image, text = (
        F.normalize(torch.tensor(rng.normal(size=(12, 32)), dtype=torch.float32), dim=1).bfloat16()
        for _ in range(2)
    )
    ids, member = torch.arange(12), torch.eye(12)
    found = []
    for kind in (torch.float32, torch.bfloat16):
        one, other = (x.detach().clone().to(kind).requires_grad_() for x in (image, text))
        log_scale = torch.tensor(scale, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            loss = contrastive_loss(one, other, log_scale, ids)
            loss = loss + membership_loss(one, other, log_scale, member)
        loss.backward()
        found.append((loss.item(), log_scale.grad.item(), one.grad.float()))
    (loss, slope, gradient), (half_loss, half_slope, half_gradient) = found
    assert half_loss == pytest.approx(loss, rel=1e-5)
    assert half_slope == pytest.approx(slope, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(half_gradient, gradient, rtol=0.01, atol=1e-4)
