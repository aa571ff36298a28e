"""The metrics of single tensors, by themselves."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from torch import Tensor

from vlsurgery.surgery.diff.accumulator import Accumulator
from vlsurgery.surgery.diff.metrics import PairStatistics
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics
from vlsurgery.surgery.runtime.arrays import as_numpy, kernel_input

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}


def statistics(tensors: Mapping[str, Tensor], names: Sequence[str]) -> PairStatistics:
    sums = Accumulator(tensors["adapted"].numel(), list(tensors))
    chunk = {role: kernel_input(as_numpy(tensor)) for role, tensor in tensors.items()}
    sums.add(chunk, dict(zip(tensors, names, strict=True)))
    return sums.statistics({role: DTYPES[str(each.dtype).removeprefix("torch.")] for role, each in tensors.items()})


@pytest.fixture(scope="session")
def delta_metrics() -> Callable[..., DeltaMetrics]:
    """How far a tensor moved, of two of one shape: all but its spectrum. names: what an error calls them."""

    def metrics(before: Tensor, after: Tensor, names: Sequence[str] = ("before", "after")) -> DeltaMetrics:
        found = statistics({"base": before, "adapted": after}, names).vl
        assert found is not None
        return found.metrics()

    return metrics


@pytest.fixture(scope="session")
def between_metrics() -> Callable[..., BetweenMetrics]:
    """How adapted - base and safety - adapted relate: all but their spectra. names: what an error calls the three."""

    def metrics(
        base: Tensor, adapted: Tensor, safety: Tensor, names: Sequence[str] = ("base", "adapted", "safety")
    ) -> BetweenMetrics:
        found = statistics({"base": base, "adapted": adapted, "safety": safety}, names).between
        assert found is not None
        return found.metrics()

    return metrics
