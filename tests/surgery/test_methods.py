"""Every row of METHODS obeys the laws that it states; blend equals its formula in float64."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from surgery.methods import METHODS, Law, blend

SHARES = st.floats(0, 1, width=32)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


def with_law(law: Law) -> list[str]:
    return [name for name, method in METHODS.items() if law in method.laws]


def draw(seed: int, dtype: torch.dtype = torch.float32, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 7, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("name", with_law("identity"))
@given(seed=st.integers(0, 999), dtype=DTYPES)
def test_identity(name: str, seed: int, dtype: torch.dtype) -> None:
    adapted, base, safety = draw(seed, dtype)
    result = call(name, adapted, {"base": base, "safety": safety}, {"base": 0.0, "safety": 0.0})
    assert torch.equal(bits(result), bits(adapted))


@pytest.mark.parametrize("name", with_law("endpoint"))
@given(seed=st.integers(0, 999), dtype=DTYPES, role=st.sampled_from(["base", "safety"]))
def test_endpoint(name: str, seed: int, dtype: torch.dtype, role: str) -> None:
    adapted, base, safety = draw(seed, dtype)
    others = {"base": base, "safety": safety}
    result = call(name, adapted, others, {"base": 0.0, "safety": 0.0, role: 1.0})
    assert torch.equal(bits(result), bits(others[role]))


@pytest.mark.parametrize("name", with_law("equal_inputs"))
@given(seed=st.integers(0, 999), dtype=DTYPES, shares=st.tuples(SHARES, SHARES))
def test_equal_inputs(name: str, seed: int, dtype: torch.dtype, shares: tuple[float, float]) -> None:
    (adapted,) = draw(seed, dtype, 1)
    others = {"base": adapted.clone(), "safety": adapted.clone()}
    result = call(name, adapted, others, dict(zip(others, shares, strict=True)))
    assert torch.equal(result, adapted)


@pytest.mark.parametrize("name", with_law("linear"))
@given(seed=st.integers(0, 999), shares=st.tuples(SHARES, SHARES), scale=SHARES)
def test_linear(name: str, seed: int, shares: tuple[float, float], scale: float) -> None:
    adapted, base, safety = draw(seed, torch.float64)
    others = {"base": base, "safety": safety}

    def move(first: float, second: float) -> Tensor:
        return call(name, adapted, others, {"base": first, "safety": second}) - adapted

    first, second = shares
    assert torch.allclose(move(first, second), move(first, 0) + move(0, second), atol=1e-12)
    assert torch.allclose(move(scale * first, scale * second), scale * move(first, second), atol=1e-12)


@pytest.mark.parametrize("name", with_law("permutation"))
@given(seed=st.integers(0, 999), dtype=DTYPES, shares=st.lists(SHARES, min_size=4, max_size=4))
def test_permutation(name: str, seed: int, dtype: torch.dtype, shares: list[float]) -> None:
    adapted, *tensors = draw(seed, dtype, 5)
    roles = dict(zip("abcd", zip(tensors, shares, strict=True), strict=True))
    results = [
        call(name, adapted, {role: roles[role][0] for role in order}, {r: roles[r][1] for r in order})
        for order in itertools.permutations(roles)
    ]
    assert all(torch.equal(bits(result), bits(results[0])) for result in results)


@given(seed=st.integers(0, 999), dtype=DTYPES, shares=st.tuples(SHARES, SHARES))
def test_blend_equals_its_formula_in_float64(seed: int, dtype: torch.dtype, shares: tuple[float, float]) -> None:
    adapted, base, safety = draw(seed, dtype)
    a, b, s = (tensor.double().numpy() for tensor in (adapted, base, safety))
    expected = a + shares[0] * (b - a) + shares[1] * (s - a)
    result = blend(adapted, {"base": base, "safety": safety}, dict(zip(("base", "safety"), shares, strict=True)))
    # Half a unit in the last place of the stored dtype, and float32's rounding of the sum before it.
    unit = torch.finfo(dtype).eps
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=unit, atol=2e-6 if unit > 1e-10 else 1e-14)
    assert result.dtype == dtype


@given(seed=st.integers(0, 999), share=SHARES)
def test_blend_with_one_other_stays_between(seed: int, share: float) -> None:
    adapted, base, _ = draw(seed)
    result = blend(adapted, {"base": base}, {"base": share})
    assert (result >= torch.minimum(adapted, base) - 1e-6).all()
    assert (result <= torch.maximum(adapted, base) + 1e-6).all()


def test_blend_leaves_its_inputs_alone() -> None:
    adapted, base, _ = draw(0)
    copies = adapted.clone(), base.clone()
    blend(adapted, {"base": base}, {"base": 0.5})
    assert torch.equal(adapted, copies[0])
    assert torch.equal(base, copies[1])


def test_blend_stores_in_the_dtype_of_adapted() -> None:
    adapted, base, _ = draw(0)
    half = adapted.bfloat16()
    assert blend(half, {"base": base}, {"base": 1.0}).equal(base.bfloat16())
    assert blend(half, {"base": base}, {"base": 0.3}).dtype == torch.bfloat16


def test_a_share_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="'safety'"):
        blend(torch.zeros(2), {"base": torch.ones(2)}, {"safety": 0.1})
