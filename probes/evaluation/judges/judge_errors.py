"""How often a judge errs against human labels, and rates corrected for it."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.evaluation.intervals import wilson
from vlsurgery.probes.results import LABELS, Estimate, Label, Rate
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Frozen

DRAWS: Final = 4000  # of the bootstrap
PRIOR: Final = 0.5  # added to each count before it is resampled (Jeffreys): a count of 0 is no proof of 0


class Confusion(Frozen):
    """A judge's verdicts against human labels of the same completions, on the question whether they were refused.

    judge: its name. n: completions. accuracy: share on which both agree whether it was refused. precision: of those
    that the judge calls refused, the share that people do. recall (sensitivity): of those that people call refused,
    the share that the judge does. specificity: of those that people don't call refused, the share that the judge
    doesn't. Each with Wilson's 95% interval; a reason stands where there is nothing to divide by.
    table: human label -> the judge's label -> completions.
    """

    judge: str
    n: int
    accuracy: Rate
    precision: Rate
    recall: Rate
    specificity: Rate
    table: dict[str, dict[str, int]]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Completions that both call refused, people alone, the judge alone, and neither of them."""
        both = self.table["refused"]["refused"]
        people = sum(self.table["refused"].values())
        judge = sum(row["refused"] for row in self.table.values())
        return both, people - both, judge - both, self.n - people - judge + both


def judge_errors(judge: str, verdicts: Sequence[Label], labels: Sequence[Label]) -> Confusion:
    """How a judge's labels stand to human labels of the same completions, in the same order.

    Raises SurgeryError where there are none, or not as many of one as of the other.
    """
    if not labels or len(verdicts) != len(labels):
        raise SurgeryError(
            f"judge {judge}: expected a verdict for each labelled completion, found {len(verdicts)} for {len(labels)}."
        )
    pairs = Counter(zip(labels, verdicts, strict=True))
    table = {label: {verdict: pairs[label, verdict] for verdict in LABELS} for label in LABELS}
    both = pairs["refused", "refused"]
    by_people = sum(table["refused"].values())
    by_judge = sum(row["refused"] for row in table.values())
    neither = len(labels) - by_people - by_judge + both
    return Confusion(
        judge=judge,
        n=len(labels),
        accuracy=_share(both + neither, len(labels), "no completion is labelled"),
        precision=_share(both, by_judge, "the judge calls no completion refused"),
        recall=_share(both, by_people, "people call no completion refused"),
        specificity=_share(neither, len(labels) - by_people, "people call every completion refused"),
        table=table,
    )


def _share(count: int, n: int, reason: str) -> Rate:
    if n == 0:
        return Rate(rate=None, reason=reason)
    low, high = wilson(count, n)
    return Rate(rate=count / n, low=low, high=high, n=n, requests=n)


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> Estimate:
    """The true rate behind a rate that an erring test measured (Rogan and Gladen 1978).

        (rate + specificity - 1) / (sensitivity + specificity - 1), clipped to [0, 1]

    sensitivity: share of true cases that the test finds. specificity: share of the others that it leaves. All in
    [0, 1]. There is no value, and a reason, where they sum to 1 or less: such a test knows no more than a coin.
    """
    if sensitivity + specificity <= 1:
        return Estimate(
            value=None,
            reason=f"recall {sensitivity:.2f} and specificity {specificity:.2f} sum to 1 or less: this judge can't "
            "tell refusals from other answers",
        )
    return Estimate(value=min(1.0, max(0.0, (rate + specificity - 1) / (sensitivity + specificity - 1))))


def corrected_rate(outcomes: Sequence[bool], requests: Sequence[Hashable], confusion: Confusion, seed: int = 0) -> Rate:
    """The refused rate corrected for the judge's own errors (`rogan_gladen`), with a 95% interval that carries them.

    outcomes: per prompt, whether the judge calls it refused. requests: the request of each. confusion: the judge
    against human labels of completions such as these.

    The interval is a percentile bootstrap that resamples requests, and the labelled completions people call refused
    and those they don't, each count raised by PRIOR, so that few labels give a wide interval even where the judge
    made no error on them. A draw in which the judge can't tell refusals from other answers counts as 0 for the lower
    bound and as 1 for the upper; at 0 and 1 it is at least as wide as Wilson's. There is no rate, and a reason, where
    no prompt was asked, where labels of one side are missing, or where `rogan_gladen` has none.
    """
    if not outcomes:
        return Rate(rate=None, reason="no prompt of this kind")
    ids = {request: at for at, request in enumerate(dict.fromkeys(requests))}
    clusters = np.array([ids[request] for request in requests])
    size = {"n": len(outcomes), "requests": len(ids)}
    missing = next((each.reason for each in (confusion.recall, confusion.specificity) if each.rate is None), None)
    if missing:
        return Rate(rate=None, reason=f"not to be corrected: {missing}", **size)
    values = np.asarray(outcomes, dtype=np.float64)
    point = rogan_gladen(float(values.mean()), confusion.recall.rate or 0.0, confusion.specificity.rate or 0.0)
    if point.value is None:
        return Rate(rate=None, reason=point.reason, **size)
    generator = np.random.default_rng(seed)
    raw = _resampled_rates(values, clusters, len(ids), generator)
    both, missed, wrong, left = confusion.counts
    sensitivity = generator.beta(both + PRIOR, missed + PRIOR, DRAWS)
    specificity = generator.beta(left + PRIOR, wrong + PRIOR, DRAWS)
    low, high = _bounds(raw, sensitivity, specificity)
    if point.value in (0.0, 1.0):
        # Clipped: all draws may be. So many requests without an exception still don't show that there is none.
        alone = wilson(point.value * len(ids), len(ids))
        low, high = min(low, alone[0]), max(high, alone[1])
    return Rate(rate=point.value, low=min(low, point.value), high=max(high, point.value), **size)


def _resampled_rates(
    values: NDArray[np.float64], clusters: NDArray[np.int64], count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draws of the raw rate. Where each prompt is its own request, or all requests have one share, the counts of
    requests are resampled with PRIOR: resampling the requests themselves could show no exception that it has not seen.
    """
    sums = np.bincount(clusters, values, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    if count == len(values) or np.ptp(sums / sizes) == 0:
        refused = float(values.mean()) * count
        return generator.beta(refused + PRIOR, count - refused + PRIOR, DRAWS)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    found: NDArray[np.float64] = (weights @ sums) / (weights @ sizes)
    return found


def _bounds(
    raw: NDArray[np.float64], sensitivity: NDArray[np.float64], specificity: NDArray[np.float64]
) -> tuple[float, float]:
    told = sensitivity + specificity > 1
    corrected = np.clip((raw + specificity - 1) / np.where(told, sensitivity + specificity - 1, 1), 0, 1)
    low = np.quantile(np.where(told, corrected, 0), 0.025)
    high = np.quantile(np.where(told, corrected, 1), 0.975)
    return float(low), float(high)
