"""Every row of METHODS obeys the laws that it states, whatever the chunks that it is cut into, and equals its
formula in float64."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st
from torch import Tensor

from vlsurgery.surgery.methods import METHODS, Property, kernels, projection

COEFFICIENTS = st.just(0.0) | st.floats(2**-10, 1, width=32)
SEEDS = st.integers(0, 999)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
DENSITIES = st.floats(0.2, 0.8)
EVERY = pytest.mark.parametrize("name", METHODS)


def having(law: Property) -> Any:
    """The methods that promise a law."""
    return pytest.mark.parametrize("name", [name for name, method in METHODS.items() if law in method.properties])


def draw(seed: int, dtype: torch.dtype = torch.float32, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 7, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


def call(
    name: str,
    base: Tensor,
    models: dict[str, Tensor],
    coefficients: dict[str, float] | float | None = None,
    density: float = 0.5,
    **more: Any,
) -> Tensor:
    """A method on as many of the models as it takes; it gets the base only where it needs one."""
    method = METHODS[name]
    if method.named_inputs:
        return call_with_named_inputs(name, base, models, density, **more)
    most = method.models[1] or len(models)
    taken = dict(itertools.islice(models.items(), most))
    if "density" in method.parameters:
        more["density"] = density
    return method.merge(taken, base if method.needs_base else None, coefficients, **more)


def call_with_named_inputs(name: str, base: Tensor, models: dict[str, Tensor], density: float, **more: Any) -> Tensor:
    """A method with named inputs: they are the models in turn, the last one again where there are too few."""
    method, given = METHODS[name], list(models)
    chosen = dict(zip(method.named_inputs, [*given, *given[-1:] * len(method.named_inputs)], strict=False))
    if "density" in method.parameters:
        more["density"] = density
    return method.merge({named: models[model] for named, model in chosen.items()}, base, 1.0, **more)


def coefficients_of(name: str, *values: float) -> dict[str, float]:
    """Coefficients of the models x, y, ... in the range of the method: 1 where only 0 and 1 are allowed."""
    whole = METHODS[name].coefficient.whole
    return {model: 1.0 if whole else share for model, share in zip("xyzw", values, strict=False)}


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


@having("identity")
@given(seed=SEEDS, dtype=DTYPES)
def test_identity(name: str, seed: int, dtype: torch.dtype) -> None:
    base, x, y = draw(seed, dtype)
    assert torch.equal(bits(call(name, base, {"x": x, "y": y}, 0.0)), bits(base))


@having("endpoint")
@given(seed=SEEDS, dtype=DTYPES, chosen=st.sampled_from("xy"))
def test_endpoint(name: str, seed: int, dtype: torch.dtype, chosen: str) -> None:
    base, x, y = draw(seed, dtype)
    models = {"x": x, "y": y} if METHODS[name].models[1] != 1 else {chosen: {"x": x, "y": y}[chosen]}
    result = call(name, base, models, {model: float(model == chosen) for model in models})
    assert torch.equal(bits(result), bits(models[chosen]))


@having("equal_inputs")
@given(seed=SEEDS, dtype=DTYPES, values=st.tuples(COEFFICIENTS, COEFFICIENTS))
def test_equal_inputs(name: str, seed: int, dtype: torch.dtype, values: tuple[float, float]) -> None:
    (base,) = draw(seed, dtype, 1)
    coefficients = coefficients_of(name, values[0] + 0.1, values[1])
    if METHODS[name].coefficient.high == 1:
        coefficients = {model: min(1.0, coefficient) for model, coefficient in coefficients.items()}
    assert torch.equal(call(name, base, {"x": base.clone(), "y": base.clone()}, coefficients), base)


@having("zero_delta")
@given(seed=SEEDS, dtype=DTYPES, share=COEFFICIENTS)
def test_a_model_that_is_the_base_adds_nothing(name: str, seed: int, dtype: torch.dtype, share: float) -> None:
    (base,) = draw(seed, dtype, 1)
    assert torch.equal(
        call(name, base, {"x": base.clone(), "y": base.clone()}, coefficients_of(name, share, share)), base
    )


@having("linear")
@given(seed=SEEDS, values=st.tuples(COEFFICIENTS, COEFFICIENTS), scale=COEFFICIENTS)
def test_linear(name: str, seed: int, values: tuple[float, float], scale: float) -> None:
    base, x, y = draw(seed, torch.float64)

    def move(first: float, second: float) -> Tensor:
        return call(name, base, {"x": x, "y": y}, {"x": first, "y": second}, seed=seed) - base

    first, second = values
    assert torch.allclose(move(first, second), move(first, 0) + move(0, second), atol=1e-12)
    assert torch.allclose(move(scale * first, scale * second), scale * move(first, second), atol=1e-12)


@having("scaling")
@given(seed=SEEDS, values=st.tuples(COEFFICIENTS, COEFFICIENTS), density=DENSITIES)
def test_twice_the_tensors_give_twice_the_result(
    name: str, seed: int, values: tuple[float, float], density: float
) -> None:
    base, x, y = draw(seed)
    coefficients = coefficients_of(name, max(values[0], 0.01), values[1])
    once = call(name, base, {"x": x, "y": y}, coefficients, density, seed=seed)
    assert torch.equal(call(name, 2 * base, {"x": 2 * x, "y": 2 * y}, coefficients, density, seed=seed), 2 * once)


@having("permutation")
@given(seed=SEEDS, dtype=DTYPES, values=st.lists(st.floats(0.0625, 1, width=32), min_size=3, max_size=3))
def test_the_order_of_the_models_does_not_matter(name: str, seed: int, dtype: torch.dtype, values: list[float]) -> None:
    base, *tensors = draw(seed, dtype, 4)
    models, coefficients = dict(zip("xyz", tensors, strict=True)), coefficients_of(name, *values)
    results = [
        call(name, base, {model: models[model] for model in order}, {model: coefficients[model] for model in order})
        for order in itertools.permutations(models)
    ]
    assert all(torch.equal(bits(result), bits(results[0])) for result in results)


@having("entries")
@given(seed=SEEDS, values=st.tuples(COEFFICIENTS, COEFFICIENTS), density=DENSITIES)
def test_the_order_of_the_entries_does_not_matter(
    name: str, seed: int, values: tuple[float, float], density: float
) -> None:
    base, x, y = draw(seed)
    coefficients = coefficients_of(name, max(values[0], 0.01), values[1])
    order = torch.randperm(35, generator=torch.Generator().manual_seed(seed))

    def shuffled(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1)[order].reshape(5, 7)

    straight = call(name, base, {"x": x, "y": y}, coefficients, density)
    mixed = call(name, shuffled(base), {"x": shuffled(x), "y": shuffled(y)}, coefficients, density)
    torch.testing.assert_close(mixed, shuffled(straight), rtol=1e-6, atol=1e-7)


@having("between")
@given(seed=SEEDS, values=st.lists(st.floats(0.0625, 1, width=32), min_size=3, max_size=3))
def test_the_result_lies_between_the_inputs(name: str, seed: int, values: list[float]) -> None:
    base, *tensors = draw(seed, count=4)
    result = call(name, base, dict(zip("xyz", tensors, strict=True)), coefficients_of(name, *values))
    stacked = torch.stack(tensors)
    assert (result >= stacked.amin(0) - 1e-5).all()
    assert (result <= stacked.amax(0) + 1e-5).all()


@EVERY
@given(seed=SEEDS, dtype=DTYPES, chunk=st.integers(1, 40), density=DENSITIES)
def test_chunks_never_change_the_result(name: str, seed: int, dtype: torch.dtype, chunk: int, density: float) -> None:
    """Few distinct numbers, so that many entries have one magnitude and the threshold separates equals."""
    base, x, y = (tensor.mul(2).round().div(4).to(dtype) for tensor in draw(seed, torch.float64))
    whole = call(name, base, {"x": x, "y": y}, 0.5 if METHODS[name].models[0] == 1 else 1.0, density)
    cut = call(name, base, {"x": x, "y": y}, 0.5 if METHODS[name].models[0] == 1 else 1.0, density, chunk=chunk)
    # Sums over a tensor (angles, norms) are added chunk by chunk, in float64.
    torch.testing.assert_close(cut, whole, rtol=0 if METHODS[name].prepare is None else 1e-6, atol=1e-7)


def safelora_projection(base: np.ndarray, adapted: np.ndarray, unaligned: np.ndarray) -> tuple[np.ndarray, float]:
    """Safe LoRA's C delta, and its cosine with the delta, as the paper writes them."""
    vector, delta = base - unaligned, adapted - base
    rows = vector @ vector.T / np.linalg.norm(vector) @ delta
    return rows, float((rows * delta).sum() / np.linalg.norm(rows) / np.linalg.norm(delta))


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 6)])
@given(seed=SEEDS, tau=st.floats(0, 1), share=st.floats(0, 1), gamma=st.floats(0, 2), group=st.integers(1, 60))
def test_safety_methods_in_float64(
    shape: tuple[int, int], seed: int, tau: float, share: float, gamma: float, group: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, adapted, safe, unaligned = (torch.randn(*shape, generator=generator) for _ in range(4))
    b, a, s, u = (tensor.double().numpy() for tensor in (base, adapted, safe, unaligned))
    rows, cosine = safelora_projection(b, a, u)
    assume(abs(cosine - tau) > 1e-5)
    models = {"adapted": adapted, "unaligned": unaligned}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "GROUP_SIZE", group)
        lora = METHODS["safelora"].merge(models, base, tau=tau, chunk=7)
        merge = METHODS["safemerge"].merge({**models, "safe": safe}, base, tau=tau, share=share)
    expected = b + rows if cosine <= tau else a
    np.testing.assert_allclose(lora.double().numpy(), expected, rtol=1e-4, atol=1e-4)
    expected = a + share * (s - a) if cosine <= tau else a
    np.testing.assert_allclose(merge.double().numpy(), expected, rtol=1e-5, atol=1e-5)
    resta = METHODS["resta"].merge(models, base, gamma=gamma)
    np.testing.assert_allclose(resta.double().numpy(), a + gamma * (b - u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("coefficients", [(0.5, 0.3, 0.8), (0.3, 0.3, 0.3), (1.0, 0.6, 0.2)])
@given(seed=SEEDS)
def test_rounded_products_decide_the_sign_of_sums_that_cancel_out(
    seed: int, coefficients: tuple[float, ...], normalize: bool
) -> None:
    """Deltas of few digits often cancel out, except for the rounding of their products with coefficients."""
    drawn = torch.randint(-8, 9, (3, 2000), generator=torch.Generator().manual_seed(seed))
    deltas = (drawn.float() / 1024).numpy()
    parts = [delta * np.float32(coefficient) for delta, coefficient in zip(deltas, coefficients, strict=True)]
    side = np.where(parts[0] + parts[1] + parts[2] >= 0, 1, -1)
    agree = [np.sign(part) == side for part in parts]
    expected = sum(part.astype(float) * kept for part, kept in zip(parts, agree, strict=True))
    if normalize:
        votes = sum(coefficient * kept for coefficient, kept in zip(coefficients, agree, strict=True))
        expected = np.divide(expected, votes, out=np.zeros_like(expected), where=votes > 0)
    models = dict(zip("abc", map(torch.from_numpy, deltas), strict=True))
    asked = dict(zip("abc", coefficients, strict=True))
    merged = METHODS["ties"].merge(models, torch.zeros(2000), asked, normalize=normalize)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-5, atol=1e-9)


@given(seed=SEEDS, density=st.floats(0.1, 0.9), rescale=st.booleans())
def test_resta_prunes_the_adapted_delta_as_dare_does_and_nothing_else(seed: int, density: float, rescale: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, adapted, unaligned = (torch.randn(9, 40, generator=generator) for _ in range(3))
    asked = {"density": density, "rescale": rescale, "seed": seed, "site": "text.0.mlp.up"}
    pruned = METHODS["dare_linear"].merge({"adapted": adapted}, base, 1.0, **asked)
    merged = METHODS["resta"].merge({"adapted": adapted, "unaligned": unaligned}, base, gamma=0.5, **asked)
    torch.testing.assert_close(merged, pruned + 0.5 * (base - unaligned))


@EVERY
@given(seed=SEEDS)
def test_inputs_are_left_as_they_were(name: str, seed: int) -> None:
    base, x, y = draw(seed)
    before = [tensor.clone() for tensor in (base, x, y)]
    call(name, base, {"x": x, "y": y}, 1.0)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((base, x, y), before, strict=True))


def elect_sign(moves: list[np.ndarray], coefficients: list[float], normalize: bool) -> np.ndarray:
    """TIES' elected sign and disjoint merge, as the paper writes them."""
    weighted = np.stack([coefficient * move for coefficient, move in zip(coefficients, moves, strict=True)])
    elected = np.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agree = np.sign(weighted) == elected
    total = (weighted * agree).sum(0)
    voted = (agree * np.array(coefficients)[:, None, None]).sum(0)
    return total / np.where(voted == 0, 1, voted) if normalize else total


def trim(delta: np.ndarray, density: float) -> np.ndarray:
    count = max(1, int(density * delta.size))
    kept = np.argsort(-np.abs(delta).ravel(), kind="stable")[:count]
    result = np.zeros(delta.size)
    result[kept] = delta.ravel()[kept]
    return result.reshape(delta.shape)


def magnitude_band(delta: np.ndarray, density: float, gamma: float) -> np.ndarray:
    count, top = int(density * delta.size), int(gamma * delta.size)
    start = max(0, delta.size - count - top)
    kept = np.argsort(np.abs(delta).ravel(), kind="stable")[start : start + count]
    result = np.zeros(delta.size)
    result[kept] = delta.ravel()[kept]
    return result.reshape(delta.shape)


def slerp(base: np.ndarray, other: np.ndarray, t: float) -> np.ndarray:
    cosine = (base * other).sum() / np.linalg.norm(base) / np.linalg.norm(other)
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * base + np.sin(t * angle) * other) / np.sin(angle)


def model_stock(deltas: list[np.ndarray]) -> np.ndarray:
    pairs = itertools.combinations(deltas, 2)
    cosine = np.mean([(a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    share = len(deltas) * cosine / (1 + (len(deltas) - 1) * cosine)
    return share * np.mean(deltas, axis=0)


@pytest.mark.parametrize("normalize", [True, False])
@given(seed=SEEDS, values=st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)), density=DENSITIES, lambda_=st.floats(0, 2))
def test_formulas_in_float64(
    seed: int, values: tuple[float, float], density: float, lambda_: float, normalize: bool
) -> None:
    base, x, y = draw(seed)
    b, one, two = (tensor.double().numpy() for tensor in (base, x, y))
    deltas, coefficients = [one - b, two - b], list(values)
    total = sum(coefficients) if normalize else 1.0
    gamma = 0.1
    cut = [trim(delta, density) for delta in deltas]
    middle = [magnitude_band(delta, density, gamma) for delta in deltas]
    moves = sum(coefficient * delta for coefficient, delta in zip(coefficients, deltas, strict=True))
    expected = {
        "blend": b + moves,
        "linear": (coefficients[0] * one + coefficients[1] * two) / total,
        "slerp": slerp(b, one, coefficients[0]),
        "task_arithmetic": b + lambda_ * moves / total,
        "ties": b + lambda_ * elect_sign(cut, coefficients, normalize),
        "breadcrumbs": b + lambda_ * (coefficients[0] * middle[0] + coefficients[1] * middle[1]) / total,
        "breadcrumbs_ties": b + lambda_ * elect_sign(middle, coefficients, normalize),
        "model_stock": b + model_stock(deltas),
    }
    for name, wanted in expected.items():
        given_ = {"lambda": lambda_, "normalize": normalize, "gamma": gamma}
        more = {key: value for key, value in given_.items() if key in METHODS[name].parameters}
        result = call(name, base, {"x": x, "y": y}, coefficients_of(name, *coefficients), density, **more)
        np.testing.assert_allclose(result.double().numpy(), wanted, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("length", [kernels.TILE, kernels.TILE + 5, 3 * kernels.TILE - 1])
@given(seed=SEEDS)
def test_angles_are_those_of_every_entry(length: int, seed: int) -> None:
    """Dot products are summed tile by tile, and over what is left behind the last whole tile."""
    noise = np.random.default_rng(seed).normal(size=(4, length)).astype(np.float32)
    base, *others = (noise[0], *(noise[0] + 0.3 * noise[1] + 0.2 * part for part in noise[1:]))
    models = dict(zip("xyz", map(torch.tensor, others), strict=True))
    b, one, *rest = (part.astype(np.float64) for part in (base, *others))
    merged = {
        "slerp": (METHODS["slerp"].merge({"x": models["x"]}, torch.tensor(base), 0.4), slerp(b, one, 0.4)),
        "model_stock": (
            METHODS["model_stock"].merge(models, torch.tensor(base)),
            b + model_stock([one - b, *(part - b for part in rest)]),
        ),
    }
    for name, (result, wanted) in merged.items():
        np.testing.assert_allclose(result.double().numpy(), wanted, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.7])
def test_random_methods_keep_the_density_and_the_mean(name: str, density: float) -> None:
    """Of one model: the share of entries that move is the density, and their mean move that of the whole delta."""
    generator = torch.Generator().manual_seed(3)
    delta = torch.rand(400, 500, generator=generator) + 0.5
    base = torch.zeros(400, 500)
    result = call(name, base, {"x": delta}, 1.0, density, seed=5)
    share = float((result != 0).double().mean())
    deviation = (density * (1 - density) / delta.numel()) ** 0.5
    assert abs(share - density) < 5 * deviation
    assert abs(float(result.double().mean()) / float(delta.double().mean()) - 1) < 0.02
    assert not torch.equal(result, call(name, base, {"x": delta}, 1.0, density, seed=6))
    assert not torch.equal(result, call(name, base, {"x": delta}, 1.0, density, seed=5, site="text.1.mlp.up"))


def test_keep_probabilities_rise_with_the_rank() -> None:
    """DELLA keeps the largest entries of a row more often than the smallest, by twice epsilon."""
    delta = torch.arange(1.0, 1001).repeat(500, 1)
    result = METHODS["della_linear"].merge({"x": delta}, delta * 0, 1.0, density=0.5, epsilon=0.2, rescale=False)
    kept = (result != 0).double().mean(0)
    assert float(kept[:100].mean()) == pytest.approx(0.32, abs=0.02)
    assert float(kept[-100:].mean()) == pytest.approx(0.68, abs=0.02)


@given(seed=SEEDS, dtype=DTYPES, values=st.tuples(COEFFICIENTS, COEFFICIENTS))
def test_blend_is_rounded_once(seed: int, dtype: torch.dtype, values: tuple[float, float]) -> None:
    adapted, base, safety = draw(seed, dtype)
    a, b, s = (tensor.double().numpy() for tensor in (adapted, base, safety))
    result = METHODS["blend"].merge({"base": base, "safety": safety}, adapted, {"base": values[0], "safety": values[1]})
    # Half a unit in the last place of the stored dtype, and float32's rounding of the sum before it.
    unit = torch.finfo(dtype).eps
    expected = a + values[0] * (b - a) + values[1] * (s - a)
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=unit, atol=2e-6 if unit > 1e-10 else 1e-14)
    assert result.dtype == dtype
