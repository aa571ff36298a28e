import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from vlsurgery.probes.models.row_losses import divergences, surprisals


@pytest.fixture(params=[1, 30, 10**6], autouse=True)
def _chunked(request, monkeypatch):
    monkeypatch.setattr("vlsurgery.probes.models.row_losses.CHUNK_ENTRIES", request.param)


def drawn(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def test_surprisals_are_the_cross_entropy_and_their_gradient_is_its():
    logits, targets = drawn(7, 11).requires_grad_(True), torch.arange(7)
    expected = cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(surprisals(logits, targets), expected)
    assert torch.autograd.gradcheck(lambda given: surprisals(given, targets), [logits])


def test_divergences_are_torchs_and_their_gradient_is_the_slope_of_finite_differences():
    logits, reference = drawn(6, 9).requires_grad_(True), drawn(6, 9) + 1.5 * drawn(9, 6).T
    expected = kl_div(log_softmax(logits, -1), log_softmax(reference, -1), reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(divergences(logits, reference), expected)
    assert torch.autograd.gradcheck(lambda given: divergences(given, reference), [logits])
    assert float(divergences(logits.detach(), logits.detach()).abs().max()) < 1e-12


def test_half_precision_is_computed_in_float32_and_its_gradient_rounded_once():
    logits = drawn(5, 40, dtype=torch.bfloat16).requires_grad_(True)
    exact = logits.detach().float().requires_grad_(True)
    targets, weight = torch.arange(5), torch.tensor([1.0, 2.0, 0.5, 1.0, 0.25])
    found, expected = surprisals(logits, targets), cross_entropy(exact, targets, reduction="none")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(logits.grad, exact.grad.bfloat16(), rtol=2**-8, atol=1e-6)


def test_nothing_is_kept_for_going_back_where_no_gradient_is_asked_for():
    assert not divergences(drawn(2, 3), drawn(2, 3)).requires_grad
    assert surprisals(drawn(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0,)
