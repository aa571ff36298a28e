"""Fitting directions to plain tensors: laws, attacks, and scikit-learn's and numpy's own answers beside ours."""

import re

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from vlsurgery.probes import directions
from vlsurgery.probes.directions.fits import METHODS
from vlsurgery.surgery.errors import SurgeryError

WIDTH = 12


def states(shift: float = 1.0, rows: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Harmful and harmless states around a common mean, a shift apart along the fourth axis."""
    made = torch.Generator().manual_seed(seed)
    common = 5 * torch.ones(WIDTH)
    harmful, harmless = (common + torch.randn(rows, WIDTH, generator=made) for _ in range(2))
    harmful[:, 3] += shift
    return harmful, harmless


def test_a_difference_of_means_is_the_difference_of_means() -> None:
    harmful, harmless = states()
    found = directions.fit(harmful, harmless)
    expected = harmful.double().mean(0) - harmless.double().mean(0)
    torch.testing.assert_close(found.vector, expected)
    torch.testing.assert_close(found.unit, expected / expected.norm())
    assert found.vectors.shape == (1, WIDTH)
    assert float(found.gaps) == pytest.approx(float(expected.norm()))
    back = directions.fit(harmless, harmful)
    torch.testing.assert_close(back.vector, -expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_units_that_point_at_harmful(method: directions.Method) -> None:
    harmful, harmless = states(shift=6.0)
    before = harmful.clone(), harmless.clone()
    found = directions.fit(harmful, harmless, method)
    assert found.method == method
    torch.testing.assert_close(found.unit.norm(), torch.tensor(1.0, dtype=torch.float64))
    assert found.unit[3] > 0.9
    assert found.apply(harmful).mean() - found.apply(harmless).mean() == pytest.approx(float(found.gaps), rel=1e-6)
    assert torch.equal(harmful, before[0])
    assert torch.equal(harmless, before[1])


def test_apply_is_the_length_along_the_unit_whatever_the_shape() -> None:
    harmful, harmless = states()
    found = directions.fit(harmful, harmless)
    batch = torch.randn(2, 3, WIDTH)
    assert found.apply(batch).shape == (2, 3)
    torch.testing.assert_close(found.apply(batch), (batch.double() * found.unit).sum(-1))
    several = directions.fit(harmful, harmless, "pca", k=3)
    assert several.apply(batch).shape == (2, 3, 3)


def test_to_moves_and_casts_and_leaves_the_first_as_it_was() -> None:
    found = directions.fit(*states())
    cast = found.to("cpu", torch.bfloat16)
    assert cast.unit.dtype == torch.bfloat16
    assert found.unit.dtype == torch.float64
    assert (cast.method, cast.split_half) == (found.method, found.split_half)
    assert found.to("meta").gaps.device.type == "meta"
    with pytest.raises(AttributeError):
        found.method = "other"  # type: ignore[misc]


def test_the_split_half_is_the_cosine_of_even_and_odd_rows() -> None:
    harmful, harmless = states(rows=41)
    halves = [directions.fit(harmful[at::2], harmless[at::2]).unit for at in (0, 1)]
    assert directions.fit(harmful, harmless).split_half == pytest.approx(float(halves[0] @ halves[1]))
    assert directions.fit(*states(shift=100.0)).split_half == pytest.approx(1, abs=1e-3)
    noise = [directions.fit(*states(shift=0.0, seed=seed)).split_half or 0.0 for seed in range(40)]
    assert abs(np.mean(noise)) < 0.15
    assert directions.fit(harmful[:1], harmless).split_half is None


def test_without_the_harmless_mean_a_direction_is_at_right_angles_to_it() -> None:
    harmful, harmless = states()
    found = directions.fit(harmful, harmless, remove_harmless_mean=True)
    mean, whole = harmless.double().mean(0), directions.fit(harmful, harmless).vector
    assert abs(float(found.unit @ mean)) < 1e-9
    torch.testing.assert_close(found.vector, whole - (whole @ mean) / (mean @ mean) * mean)
    along = harmless * 2  # the whole difference lies along the harmless mean
    with pytest.raises(SurgeryError, match="no difference apart from the harmless mean"):
        directions.fit(along, harmless, remove_harmless_mean=True)


def test_principal_directions_are_numpys_at_right_angles_and_by_size() -> None:
    harmful, harmless = states(shift=8.0)
    found = directions.fit(harmful, harmless, "pca", k=4)
    torch.testing.assert_close(found.units @ found.units.T, torch.eye(4, dtype=torch.float64))
    pairs = (harmful - harmless).double().numpy()
    values, vectors = np.linalg.eigh(pairs.T @ pairs)
    expected = vectors[:, np.argsort(-values)[:4]].T
    assert np.abs((found.units.numpy() * expected).sum(1)) == pytest.approx(1, abs=1e-9)
    assert (found.gaps >= 0).all()
    assert found.split_half is not None
    assert 0 < found.split_half <= 1


def test_a_ridge_is_scikit_learns_on_standardised_states() -> None:
    """With one penalty far above the rest of the error, its weights lie along the difference of standardised means."""
    harmful, harmless = states(rows=60)
    harmful, harmless = harmful * torch.logspace(-1, 1, WIDTH), harmless * torch.logspace(-1, 1, WIDTH)
    found = directions.fit(harmful, harmless, "ridge")
    both = torch.cat([harmful, harmless]).double().numpy()
    labels = np.repeat([1.0, -1.0], 60)
    standard = (both - both.mean(0)) / both.std(0)
    close = []
    for penalty in 10.0 ** np.arange(-2, 5):
        weights = Ridge(penalty).fit(standard, labels).coef_ / both.std(0)
        close.append(abs(float(found.unit.numpy() @ weights)) / np.linalg.norm(weights))
    assert max(close) == pytest.approx(1, abs=1e-9)


def test_a_probe_reads_what_a_difference_of_means_does_not() -> None:
    """Where loud noise lies along the difference, a probe looks past it, on states that it was not fitted to."""
    made = torch.Generator().manual_seed(1)
    noise = 10 * torch.randn(400, 1, generator=made) * torch.tensor([1.0, 1.0] + [0.0] * (WIDTH - 2))
    both = noise + 0.1 * torch.randn(400, WIDTH, generator=made)
    both[:200, 0] += 1  # readable as the difference of the first two axes alone

    def read(method: directions.Method) -> float:
        found = directions.fit(both[:200:2], both[200::2], method)
        ours, theirs = found.apply(both[1:200:2]), found.apply(both[201::2])
        return float((ours[:, None] > theirs).double().mean())

    assert read("ridge") > 0.99
    assert read("logistic") > 0.99
    assert read("means") < 0.8


def test_a_dimension_that_never_varies_gets_no_weight() -> None:
    harmful, harmless = states(shift=5.0)
    harmful[:, 0] = harmless[:, 0] = 7
    for method in ("ridge", "logistic"):
        assert directions.fit(harmful, harmless, method).unit[0] == 0


def test_states_in_half_precision_are_fitted_in_double() -> None:
    harmful, harmless = (each.bfloat16() for each in states())
    found = directions.fit(harmful, harmless)
    assert found.vector.dtype == torch.float64
    torch.testing.assert_close(found.vector, harmful.double().mean(0) - harmless.double().mean(0))


FAULTS = {
    "harmful must be [rows, width] with a row at least, but is [2, 3, 4]": (torch.zeros(2, 3, 4), torch.zeros(2, 4)),
    "harmless must be [rows, width] with a row at least, but is [0, 4]": (torch.ones(2, 4), torch.zeros(0, 4)),
    "harmful holds NaN": (torch.full((2, 4), torch.nan), torch.ones(2, 4)),
    "harmful states have width 4 and harmless ones 5": (torch.ones(2, 4), torch.zeros(2, 5)),
    "harmful and harmless states have no difference": (torch.full((3, 4), 0.1), torch.full((5, 4), 0.1)),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_be_fitted_says_why(message: str) -> None:
    with pytest.raises(SurgeryError, match=re.escape(message)):
        directions.fit(*FAULTS[message])


def test_orders_that_cannot_be_carried_out_say_so() -> None:
    harmful, harmless = states()
    with pytest.raises(SurgeryError, match="k must be 1 to 1 here, not 2"):
        directions.fit(harmful, harmless, k=2)
    with pytest.raises(SurgeryError, match="k must be 1 to 12 here, not 13"):
        directions.fit(harmful, harmless, "pca", k=13)
    with pytest.raises(SurgeryError, match="40 harmful and 39 harmless rows"):
        directions.fit(harmful, harmless[1:], "pca")
    with pytest.raises(SurgeryError, match="method must be one of means, ridge, logistic, pca, not 'lda'"):
        directions.fit(harmful, harmless, "lda")  # type: ignore[arg-type]
