from itertools import product

import numpy as np
import pytest
import torch

from vlsurgery.probes.merge_arithmetic import delta_products, merge_into

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(seed, dtype, shape=(3, 700)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("stored", "running"), list(product(DTYPES, DTYPES)))
def test_a_merge_is_the_adapted_model_and_its_share_of_each_delta(stored, running):
    adapted, one, other = (drawn(seed, stored) for seed in range(3))
    out = torch.empty(3, 700, dtype=running)
    assert merge_into(out, adapted, [one, other], [0.3, 0.2])
    origin = adapted.double()
    exact = origin + 0.3 * (one.double() - origin) + 0.2 * (other.double() - origin)
    torch.testing.assert_close(out, exact.to(running), rtol=float(torch.finfo(running).eps), atol=1e-6)


def test_the_ends_of_the_way_are_the_models_themselves():
    adapted, one = drawn(0, torch.bfloat16), drawn(1, torch.bfloat16)
    out = torch.empty_like(adapted)
    for coefficient, expected in ((1.0, one), (0.0, adapted)):
        assert merge_into(out, adapted, [one], [coefficient])
        assert torch.equal(out, expected)
    assert merge_into(out, adapted, [], [])
    assert torch.equal(out, adapted)


def test_parts_of_a_parameter_and_models_stored_unlike_are_merged_too():
    whole = torch.zeros(700, 6, dtype=torch.bfloat16)
    adapted, one, other = drawn(0, torch.bfloat16), drawn(1, torch.float32), drawn(2, torch.float16)
    assert merge_into(whole.T[:3], adapted, [one, other], [0.5, 0.25])
    expected = adapted.float() + 0.5 * (one - adapted.float()) + 0.25 * (other.float() - adapted.float())
    torch.testing.assert_close(whole.T[:3].float(), expected, rtol=2**-8, atol=1e-6)
    assert not whole.T[3:].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_told(bad, dtype):
    one = drawn(1, dtype)
    one[2, 699] = bad
    assert not merge_into(torch.empty(3, 700, dtype=dtype), drawn(0, dtype), [one], [0.5])


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_the_gradients_with_the_deltas(dtype):
    gradient, adapted = drawn(5, torch.bfloat16, (40, 700)), drawn(0, dtype, (40, 700))
    sources = [drawn(1, dtype, (40, 700)), drawn(2, torch.float32, (40, 700))]
    found = delta_products(gradient, adapted, sources)
    assert found.dtype == torch.float64
    for value, source in zip(found.tolist(), sources, strict=True):
        terms = gradient.double().numpy() * (source.double() - adapted.double()).numpy()
        assert value == pytest.approx(terms.sum(), abs=1e-6 * np.abs(terms).sum())
    assert delta_products(gradient, adapted, []).tolist() == []
