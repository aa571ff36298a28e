import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import mannwhitneyu

from vlsurgery.probes.evaluation.intervals import wilson
from vlsurgery.probes.evaluation.separation import auroc, best_by_chance, separation


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=4, max_size=40))
def test_auroc_is_the_mann_whitney_statistic(rows):
    scores, labels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if labels.all() or not labels.any():
        return
    reference = mannwhitneyu(scores[labels], scores[~labels]).statistic / (labels.sum() * (~labels).sum())
    assert auroc(scores[:, None], labels)[0] == pytest.approx(reference)


def test_separation_finds_a_known_dprime_within_its_interval():
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    scores = generator.normal(size=400) + 1.5 * labels
    area, dprime = separation(scores[:, None], labels, list(range(400)))[0]
    assert dprime.low < 1.5 < dprime.high
    assert area.low < area.value < area.high
    assert area.n == 400


def test_separation_without_variance_says_so():
    labels = np.array([True, False] * 4)
    area, dprime = separation(labels[:, None].astype(float), labels, list(range(8)))[0]
    assert area.value == 1
    assert (area.low, area.high) == (pytest.approx(wilson(4, 4)[0]), 1)  # four requests a class
    assert dprime.value is None
    assert dprime.reason


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_a_separation_without_exception_is_as_sure_as_its_requests_are_many(sign):
    """With harmless twins every request speaks for both classes, however many prompts it has."""
    labels, requests = np.array([True, False] * 120), [i // 6 for i in range(240)]
    scores = sign * labels + (0.01 * np.arange(240) / 240 if sign else 0)
    area, _ = separation(scores[:, None].astype(float), labels, requests)[0]
    assert area.value == (1 + sign) / 2
    assert area.low == pytest.approx({1: wilson(40, 40)[0], -1: 0, 0: 0.5 - wilson(0, 40)[1]}[sign])
    assert area.high == pytest.approx({1: 1, -1: wilson(0, 40)[1], 0: 0.5 + wilson(0, 40)[1]}[sign])
    assert area.n == 40


def noise_by_request(generator, twins, columns=3):
    """Scores that know the request and nothing of its class: 10 prompts a request, of one class or half of each."""
    requests = np.repeat(np.arange(24), 10)
    labels = np.tile(np.arange(10) < 5, 24) if twins else requests % 2 == 0
    sides = generator.normal(size=(24, 2, columns))[requests, (labels & twins).astype(int)]
    common = generator.normal(size=(24, columns))[requests]
    return common + sides + 0.1 * generator.normal(size=(240, columns)), labels, requests.tolist()


@pytest.mark.parametrize("twins", [True, False])
def test_the_null_of_the_best_is_passed_by_chance_5_times_in_100(twins):
    generator = np.random.default_rng(0)
    trials = [noise_by_request(generator, twins) for _ in range(300)]
    passed = np.mean([auroc(s, y).max() > best_by_chance(s, y, r, seed) for seed, (s, y, r) in enumerate(trials)])
    assert passed == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 300) ** 0.5)  # three standard deviations


def test_chance_of_the_best_grows_with_the_number_of_places_looked_at():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    scores = generator.normal(size=(60, 200))
    one, many = best_by_chance(scores[:, :1], labels, range(60)), best_by_chance(scores, labels, range(60))
    assert 0.5 < one < many < 1
    # noise itself is not a finding: its best of 200 places lies within what chance gives about 95 times in 100
    assert auroc(scores, labels).max() < many + 0.05
