"""How often the 95% intervals of rates and of paired differences hold the truth, and how wide they are.

Run it as `python tests/benchmarks/interval_coverage.py`. Coverage should be 93 to 97%. Three tables:

1. One prompt a request: every interval that was tried, summed over all counts of successes (exact, no simulation).
   "can be": the coverages next to 95%, from below and from above, that any interval could have at this n and rate which
   holds the counts around the expected one. Counts are whole, so some cells have none between 93 and 97%.
2. Requests of 2 or 3 prompts, simulated: `rate`, the same with all prompts taken as independent, with n the number of
   requests, and the percentile bootstrap over requests. Each request has its own chance, from a beta distribution under
   which two of its prompts correlate as told.
3. Paired differences of the same kinds of requests, simulated: `paired_difference`.

At rates of 0 and 1 every interval covers, by nature: its other end alone is uncertain.
"""

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from vlsurgery.probes.evaluation.intervals import cluster_ids, percentiles, rate, resample, wilson
from vlsurgery.probes.evaluation.paired import paired_difference

COUNTS = (20, 50, 112, 500)
RATES = (0.0, 0.02, 0.5, 0.98, 1.0)
CORRELATIONS = (0.0, 0.5, 1.0)
SIZES = (2, 3)
DRAWS, BOOTSTRAPPED, PAIRED_DRAWS = 3000, 200, 1000
DISCORDANT = ((0.02, 0.02), (0.1, 0.02), (0.3, 0.1), (0.5, 0.0))  # ours only, theirs only
WANTED = (0.93, 0.97)
ROUNDING = 1e-12

Interval = tuple[float, float]
Outcomes = NDArray[np.bool_]


def mid_p(successes: int, n: int) -> Interval:
    """Clopper and Pearson's interval, with half of the chance of the count itself."""

    def end(target: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            chance = stats.binom.sf(successes, n, middle) + stats.binom.pmf(successes, n, middle) / 2
            low, high = (middle, high) if chance < target else (low, middle)
        return (low + high) / 2

    return 0.0 if successes == 0 else end(0.025), 1.0 if successes == n else end(0.975)


def ours(successes: int, n: int) -> Interval:
    found = rate([place < successes for place in range(n)], range(n))
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def published(method: str) -> Callable[[int, int], Interval]:
    return lambda successes, n: proportion_confint(successes, n, method=method)


DESIGNS: dict[str, Callable[[int, int], Interval]] = {
    "rate (Wilson)": ours,
    "Agresti-Coull": published("agresti_coull"),
    "Jeffreys": published("jeffreys"),
    "Clopper-Pearson": published("beta"),
    "mid-p": mid_p,
}


def covers(interval: Interval, truth: float) -> bool:
    return interval[0] - ROUNDING <= truth <= interval[1] + ROUNDING


def reachable(n: int, share: float) -> Interval:
    """The coverages next to 95% that a set of neighbouring counts can have which holds the likeliest one."""
    chances = stats.binom.pmf(np.arange(n + 1), n, share)
    sums = np.concatenate([[0.0], np.cumsum(chances)])
    top = int(chances.argmax())
    all_ = (sums[top + 1 :][:, None] - sums[: top + 1]).ravel()
    return float(all_[all_ <= 0.95].max(initial=0.0)), float(all_[all_ >= 0.95].min(initial=1.0))


def one_prompt_a_request() -> Iterator[tuple[str, str, float]]:
    print(f"{'n':>4} {'rate':>5}  {'can be':>12}  " + "  ".join(f"{name:>16}" for name in DESIGNS))
    beyond_reach = []
    for n in COUNTS:
        found = {name: [design(hits, n) for hits in range(n + 1)] for name, design in DESIGNS.items()}
        for share in RATES:
            chances = stats.binom.pmf(np.arange(n + 1), n, share)
            cells = []
            for name, intervals in found.items():
                coverage = float(chances @ [covers(each, share) for each in intervals])
                cells.append(f"{coverage:8.1%} {float(chances @ [high - low for low, high in intervals]):7.3f}")
                if share not in (0, 1):
                    yield name, f"n {n}, rate {share}", coverage
            below, above = reachable(n, share)
            nearest = "" if share in (0, 1) else f"{below:.1%} {above:.1%}"
            print(f"{n:4} {share:5}  {nearest:>12}  " + "  ".join(f"{cell:>16}" for cell in cells))
            if nearest and below < WANTED[0] and above > WANTED[1]:
                beyond_reach.append(f"n {n}, rate {share}")
    print(f"whole counts allow no interval 93-97% at: {'; '.join(beyond_reach)}")


def draw(
    generator: np.random.Generator, n: int, shares: tuple[float, ...], correlation: float
) -> tuple[NDArray[np.int64], list[int]]:
    """Which of the kinds 0, 1, ... each prompt of n requests is, and its request. shares: of the kinds from 1."""
    sizes = generator.choice(SIZES, n)
    every = np.array([1 - sum(shares), *shares])
    if correlation == 1:
        chances = generator.multinomial(1, every, n).astype(float)
    elif correlation == 0:
        chances = np.tile(every, (n, 1))
    else:
        scale = (1 - correlation) / correlation
        chances = np.zeros((n, len(every)))
        chances[:, every > 0] = generator.dirichlet(every[every > 0] * scale, n)
    requests = np.repeat(np.arange(n), sizes)
    thrown = generator.random(len(requests))[:, None]
    return (thrown > chances.cumsum(1)[requests] - ROUNDING).sum(1).clip(max=len(shares)), requests.tolist()


def bootstrap(outcomes: Outcomes, requests: list[int]) -> Interval:
    clusters = cluster_ids(requests)
    weights = resample(int(clusters.max()) + 1)
    return percentiles(weights @ np.bincount(clusters, outcomes) / (weights @ np.bincount(clusters)))


def clustered() -> Iterator[tuple[str, str, float]]:
    names = ("rate", "all independent", "n = requests", "bootstrap")
    print(f"{'n':>4} {'rate':>5} {'corr.':>5}  " + "  ".join(f"{name:>16}" for name in names))
    generator = np.random.default_rng(0)
    for n in COUNTS:
        for share in RATES:
            for correlation in CORRELATIONS:
                found: dict[str, list[Interval]] = {name: [] for name in names}
                for number in range(1 if share in (0, 1) else DRAWS):
                    kinds, requests = draw(generator, n, (share,), correlation)
                    outcomes = kinds == 1
                    result = rate(outcomes.tolist(), requests)
                    assert result.low is not None
                    assert result.high is not None
                    found["rate"].append((result.low, result.high))
                    found["all independent"].append(wilson(int(outcomes.sum()), len(outcomes)))
                    found["n = requests"].append(wilson(n * float(outcomes.mean()), n))
                    if number < BOOTSTRAPPED:
                        found["bootstrap"].append(bootstrap(outcomes, requests))
                cells = []
                for name, intervals in found.items():
                    coverage = sum(covers(each, share) for each in intervals) / len(intervals)
                    cells.append(f"{coverage:8.1%} {np.mean([high - low for low, high in intervals]):7.3f}")
                    if share not in (0, 1):
                        yield name, f"n {n}, rate {share}, correlation {correlation}", coverage
                print(f"{n:4} {share:5} {correlation:5}  " + "  ".join(f"{cell:>16}" for cell in cells))


def paired() -> Iterator[tuple[str, str, float]]:
    print(f"{'n':>4} {'ours only':>9} {'theirs only':>11} {'corr.':>5}  {'coverage':>8} {'width':>7}  p < .05")
    generator = np.random.default_rng(1)
    for n in COUNTS:
        for shares in DISCORDANT:
            truth = shares[0] - shares[1]
            for correlation in CORRELATIONS:
                tests = []
                for _ in range(PAIRED_DRAWS):
                    kinds, requests = draw(generator, n, shares, correlation)
                    tests.append(paired_difference((kinds == 1).tolist(), (kinds == 2).tolist(), requests))
                intervals = [(t.low, t.high) for t in tests if t.low is not None and t.high is not None]
                coverage = sum(covers(each, truth) for each in intervals) / len(tests)
                width = float(np.mean([high - low for low, high in intervals]))
                found = sum(t.p is not None and t.p < 0.05 for t in tests) / len(tests)
                row = f"{n:4} {shares[0]:9} {shares[1]:11} {correlation:5}  {coverage:8.1%} {width:7.3f}  {found:7.1%}"
                print(row)
                yield "paired", f"n {n}, {shares[0]} and {shares[1]}, correlation {correlation}", coverage


def summary(title: str, table: Callable[[], Iterator[tuple[str, str, float]]]) -> None:
    """Prints a table, then for each design how far from 95% it is at its worst, and the cells beyond 93 to 97%."""
    print(f"\n{title}: coverage, mean width")
    started, designs = time.monotonic(), dict[str, dict[str, float]]()
    for design, cell, coverage in table():
        designs.setdefault(design, {})[cell] = coverage
    for design, cells in designs.items():
        worst = max(cells, key=lambda cell: abs(cells[cell] - 0.95))
        beyond = sum(not WANTED[0] <= coverage <= WANTED[1] for coverage in cells.values())
        print(f"{design}: {len(cells) - beyond} of {len(cells)} cells in 93-97%; worst {cells[worst]:.1%} ({worst})")
    print(f"{time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    summary("One prompt a request, exact", one_prompt_a_request)
    summary("Requests of 2 or 3 prompts, simulated", clustered)
    summary("Paired differences of requests of 2 or 3 prompts, simulated", paired)
    return 0


if __name__ == "__main__":
    sys.exit(main())
