"""Coefficients from per-prompt gradients: sequential convex programming, one convex problem at a time.

Near coefficients c0 every prompt's log-odds are about linear in the coefficients: z(c) = z(c0) + J (c - c0), with J
from one backward pass. The objective is convex in z, so that

    minimise  objective(z(c0) + J (c - c0)) + PROXIMITY / 2 |c - c0|^2
    where     0 <= c <= 1,  the coefficients of a block sum to at most 1,  |c - c0| <= RADIUS

is a small convex problem (the prox-linear step of composite minimisation: Burke & Ferris 1995; trust regions: Nocedal
& Wright 2006, chapter 4). It is solved by a primal-dual interior-point method (Boyd & Vandenberghe 2004, section
11.7) in milliseconds, so any price, pin or bootstrap resample is another solve, and no pass through a model. Where a
merge may lie beyond its models, both 1 are 1.5.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.objective import WORST_CELLS, Floats, Requirements, likely

Integers = NDArray[np.int64]

# Nats for moving one coefficient all the way, twice: the first, and those that cross-validation chooses from.
PROXIMITY: Final = 0.02
PROXIMITIES: Final = (PROXIMITY, 0.05, 0.1, 0.2, 0.5)
FOLDS: Final = 5  # of cross-validation, by request
HULL: Final = 1.0  # what a block's coefficients sum to at most, so that a merge lies between its models
BEYOND: Final = 1.5  # the same where they may leave that hull; never below 0, as sources are there to be moved toward
RADIUS: Final = 0.3  # how far one step moves a coefficient
RESAMPLES: Final = 200  # bootstrap draws of the coefficients
NOTHING: Final = 0.005  # a coefficient up to here counts as 0
INDIFFERENCE: Final = 0.005  # nats of the objective that nobody would notice
SHARE: Final = 0.05  # of a step's gain that smaller coefficients may cost
PRICES_OF_CHANGE: Final = tuple(0.001 * 2**at for at in range(8))  # nats a whole coefficient, tried in turn
CENTRING: Final = 10.0  # by how much an interior-point step tightens the barrier
MAX_STEPS: Final = 60  # of the interior-point method; it takes 15 to 25
GAP: Final = 1e-7  # nats by which a solution may miss the best
RESAMPLED_GAP: Final = 1e-4  # the same of a resample, whose spread is a thousand times that


@dataclass(frozen=True)
class LinearModel:
    """Log-odds of prompts that are linear in d coefficients, and what is wanted of them.

    at: [d] the coefficients at which they were taken. z: [n] log-odds there. jacobian: [n, d]. block: [d] the block of
    each coefficient, as an integer from 0. most: the largest that a coefficient, and a block's sum of them, may be.
    """

    wanted: Requirements
    at: Floats
    z: Floats
    jacobian: Floats
    block: Integers
    most: float = HULL

    def predicted(self, coefficients: Floats) -> Floats:
        """[n] the log-odds at other coefficients [d]."""
        return np.asarray(self.z + self.jacobian @ (coefficients - self.at))

    def objective(self, coefficients: Floats, weights: Floats | None = None) -> float:
        """The predicted objective in nats, the smaller the better."""
        return float(self.wanted.objective(self.predicted(coefficients), weights))

    def region(self, radius: float) -> "Region":
        """Where coefficients may go within a trust region's radius of where the model was taken."""
        return Region.around(self.at, radius, self.most)


@dataclass(frozen=True)
class Region:
    """Where coefficients may go: lower <= c <= upper. lower, upper: [d]. A block's sum is bounded by the model."""

    lower: Floats
    upper: Floats

    @classmethod
    def around(cls, at: Floats, radius: float, most: float = HULL) -> "Region":
        """The part of [0, most] within a trust region's radius of `at`."""
        return cls(np.maximum(0.0, at - radius), np.minimum(most, at + radius))

    def pinned(self, at: Floats, which: NDArray[np.bool_]) -> "Region":
        """The region in which some coefficients stay at given values."""
        return Region(np.where(which, at, self.lower), np.where(which, at, self.upper))


def solve(
    model: LinearModel,
    region: Region | None = None,
    weights: Floats | None = None,
    proximity: float = PROXIMITY,
    gap: float = GAP,
    price: float = 0.0,
) -> Floats:
    """[d] the coefficients that minimise the predicted objective in the region.

    region: by default the trust region around where the model was taken. weights: [n] of the prompts, such as how
        often a resample drew them. gap: nats by which the solution may miss the best. price: nats that a whole
        coefficient costs, so that those that bring less are 0.
    """
    region = model.region(RADIUS) if region is None else region
    free = region.upper - region.lower > 1e-12
    fixed = np.where(free, model.at, region.lower)
    if not free.any():
        return fixed
    smaller = LinearModel(
        model.wanted, model.at[free], model.predicted(fixed), model.jacobian[:, free], model.block[free], model.most
    )
    taken = _summed(model.block[~free], region.lower[~free], int(model.block.max()) + 1)
    problem = _Problem(smaller, weights, proximity, price, taken)
    found = fixed.copy()
    found[free] = problem.minimised(region.lower[free], region.upper[free], gap)
    return found


@dataclass(frozen=True)
class _Problem:
    """One convex problem. taken: [blocks] what pinned coefficients take of a block's sum."""

    model: LinearModel
    weights: Floats | None
    proximity: float
    price: float
    taken: Floats

    @cached_property
    def shares(self) -> Floats:
        return self.model.wanted.shares(self.weights)

    @cached_property
    def same_block(self) -> Floats:
        return (self.model.block[:, None] == self.model.block[None, :]).astype(np.float64)

    def gradient(self, c: Floats) -> Floats:
        return self._slopes(c)[0]

    def _slopes(self, c: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Gradient [d]; emphasis [purposes, cells]; each cell's own gradient [cells, d]; [n] p of what isn't wanted."""
        wanted, z = self.model.wanted, self.model.predicted(c)
        wrong = likely(-wanted.sign * z)
        emphasis = wanted.emphasis(self._losses(z))
        cells = (self.shares * (-wanted.sign * wrong)) @ self.model.jacobian
        gradient = emphasis.sum(0) @ cells + self.proximity * (c - self.model.at) + self.price
        return gradient, emphasis, cells, wrong

    def _losses(self, z: Floats) -> Floats:
        """Cells that a resample left out count nothing: their loss is far below all others."""
        present = self.shares.sum(-1) > 0
        return np.where(present, self.model.wanted.losses(z, self.weights), -1e6)

    def gradient_and_hessian(self, c: Floats) -> tuple[Floats, Floats]:
        """[d] and [d, d], exact: the curvature of the losses, and that of the soft maximum over cells."""
        gradient, emphasis, cells, wrong = self._slopes(c)
        curvature = (emphasis.sum(0) @ self.shares) * wrong * (1 - wrong)
        hessian = self.model.jacobian.T @ (curvature[:, None] * self.model.jacobian)
        for row in emphasis:
            mean = row @ cells / row.sum()
            apart = cells - mean
            hessian += WORST_CELLS * (apart.T * row) @ apart
        return gradient, hessian + self.proximity * np.eye(len(c))

    def minimised(self, lower: Floats, upper: Floats, enough: float) -> Floats:
        """The minimum between the bounds, where each block's sum is bounded too, to `enough` nats."""
        limits = _Limits(lower, upper, self.model.block, self.taken, self.model.most)
        c = limits.inside()
        multipliers = 1 / limits.room(c)
        for _ in range(MAX_STEPS):
            room = limits.room(c)
            gap = float(room @ multipliers)
            gradient, hessian = self.gradient_and_hessian(c)
            residual = gradient + limits.transposed(multipliers)
            if gap < enough and float(np.abs(residual).max()) < enough:
                break
            barrier = gap / (CENTRING * len(room))
            system = hessian + limits.curvature(multipliers / room, self.same_block)
            step: Floats = np.asarray(
                np.linalg.solve(system, -(gradient + limits.transposed(barrier / room))), np.float64
            )
            change: Floats = (barrier - multipliers * room + multipliers * limits.along(step)) / room
            c, multipliers = self._advanced(limits, (c, multipliers), (step, change), barrier)
        return np.clip(c, lower, upper)

    def _advanced(
        self, limits: "_Limits", now: tuple[Floats, Floats], direction: tuple[Floats, Floats], barrier: float
    ) -> tuple[Floats, Floats]:
        """As far along the direction as coefficients stay inside and the residual falls."""
        (c, multipliers), (step, change) = now, direction
        falling = change < 0
        length = min(1.0, 0.99 * float(np.min(-multipliers[falling] / change[falling], initial=np.inf)))
        while length > 1e-12 and float(limits.room(c + length * step).min()) <= 0:
            length /= 2
        before = self._residual(limits, c, multipliers, barrier)
        while length > 1e-12:
            ahead = c + length * step, multipliers + length * change
            if self._residual(limits, *ahead, barrier) <= (1 - 0.01 * length) * before:
                return ahead
            length /= 2
        return now

    def _residual(self, limits: "_Limits", c: Floats, multipliers: Floats, barrier: float) -> float:
        dual = self.gradient(c) + limits.transposed(multipliers)
        centre = multipliers * limits.room(c) - barrier
        return float(np.sqrt(dual @ dual + centre @ centre))


@dataclass(frozen=True)
class _Limits:
    """The inequalities: lower <= c, c <= upper, and the sums of blocks. Their order in every vector is this one."""

    lower: Floats
    upper: Floats
    block: Integers
    taken: Floats
    most: float

    @cached_property
    def blocks(self) -> Integers:
        """The blocks of which a coefficient is free."""
        return np.unique(self.block)

    def _sums(self, c: Floats) -> Floats:
        return _summed(self.block, c, len(self.taken))[self.blocks]

    def room(self, c: Floats) -> Floats:
        """How far each inequality is from being broken; positive inside."""
        return np.concatenate([c - self.lower, self.upper - c, self.most - self.taken[self.blocks] - self._sums(c)])

    def along(self, step: Floats) -> Floats:
        """What a step takes of each room."""
        return np.concatenate([-step, step, self._sums(step)])

    def _parts(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        low, high, sums = np.split(values, [len(self.lower), 2 * len(self.lower)])
        spread = np.zeros(len(self.taken))
        spread[self.blocks] = sums
        return low, high, spread[self.block]

    def transposed(self, values: Floats) -> Floats:
        """[d] the transpose of `along`."""
        low, high, sums = self._parts(values)
        return np.asarray(high - low + sums)

    def curvature(self, values: Floats, same_block: Floats) -> Floats:
        """[d, d] what a barrier with these weights adds to the Hessian."""
        low, high, sums = self._parts(values)
        return np.diag(low + high) + sums[:, None] * same_block

    def inside(self) -> Floats:
        """A point that breaks no inequality and touches none."""
        reach = self._sums(self.upper - self.lower)
        room = self.most - self.taken[self.blocks] - self._sums(self.lower)
        share = np.zeros(len(self.taken))
        share[self.blocks] = 0.5 * np.minimum(1.0, room / reach)
        return np.asarray(self.lower + share[self.block] * (self.upper - self.lower))


def cross_validated(model: LinearModel, region: Region | None = None) -> float:
    """The proximity whose solutions do best on requests that they were not solved on; of equals, the greatest.

    Without it, a few hundred prompts are fitted by as many coefficients better than the next few hundred are.
    """
    return min(
        reversed(PROXIMITIES),
        key=lambda proximity: float(model.wanted.objective(unseen(model, region, proximity))),
    )


def unseen(
    model: LinearModel, region: Region | None = None, proximity: float = PROXIMITY, price: float = 0.0
) -> Floats:
    """[n] the log-odds of every prompt, predicted by the solution of other requests: a fifth is left out in turn.

    region, proximity, price: as in `solve`. The order of prompts says nothing.
    """
    requests = np.unique(np.array(model.wanted.requests, dtype=object), return_inverse=True)[1]
    fold = np.random.default_rng(0).permutation(int(requests.max()) + 1)[requests] % FOLDS
    z = model.z.copy()
    for left_out in range(FOLDS):
        out = fold == left_out
        if out.any() and not out.all():
            found = solve(model, region, (~out).astype(np.float64), proximity, RESAMPLED_GAP, price)
            z[out] = model.predicted(found)[out]
    return z


def least(model: LinearModel, region: Region | None = None, proximity: float = PROXIMITY) -> tuple[Floats, float]:
    """[d] the coefficients that change least of those that are as good as the best, and what they were priced at.

    As good: the predicted objective is at most INDIFFERENCE, and SHARE of the gain, above that of the best in the
    region. Coefficients that bring nothing go to 0, or to the region's edge. Change is the sum of coefficients, whose
    price is raised step by step (a path of lasso problems: Tibshirani 1996).
    """
    best = solve(model, region, None, proximity)
    most = model.objective(best) + INDIFFERENCE + SHARE * max(0.0, model.objective(model.at) - model.objective(best))
    found, paid = best, 0.0
    for price in PRICES_OF_CHANGE:
        smaller = solve(model, region, None, proximity, price=price)
        if model.objective(smaller) > most:
            break
        found, paid = smaller, price
    return found, paid


def blocks_that_matter(model: LinearModel, coefficients: Floats, share: float = 0.9) -> list[int]:
    """The fewest blocks, about, that bring a share of the predicted gain over coefficients of 0, in their order.

    Blocks are set to 0 one after another, each time the one that is missed least (backward elimination), as long as
    the rest brings the share. Empty where the coefficients bring nothing.
    """
    nothing = model.objective(np.zeros_like(coefficients))
    gain = nothing - model.objective(coefficients)
    if gain <= INDIFFERENCE:
        return []
    left, now = sorted(set(model.block.tolist())), coefficients.copy()
    while len(left) > 1:
        without = {block: np.where(model.block == block, 0.0, now) for block in left}
        objectives = {block: model.objective(smaller) for block, smaller in without.items()}
        block = min(objectives, key=lambda each: objectives[each])
        if nothing - objectives[block] < share * gain:
            break
        left.remove(block)
        now = without[block]
    return left


def _summed(block: Integers, values: Floats, blocks: int) -> Floats:
    """[blocks] the sum of the values of each block."""
    return np.asarray(np.bincount(block, values, minlength=blocks), dtype=np.float64)


def intervals(
    model: LinearModel,
    region: Region | None = None,
    proximity: float = PROXIMITY,
    price: float = 0.0,
    resamples: int = RESAMPLES,
) -> tuple[Floats, Floats]:
    """[d] and [d] the 95% percentile interval of every coefficient when requests are drawn again. No model is run.

    proximity, price: as in `solve`.
    """
    draws = [
        solve(model, region, weights, proximity, RESAMPLED_GAP, price) for weights in model.wanted.resampled(resamples)
    ]
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return low, high


def sparse(model: LinearModel, low: Floats, region: Region | None = None, proximity: float = PROXIMITY) -> Floats:
    """[d] the solution in which coefficients whose interval holds 0 are 0. low: [d] the lower ends of the intervals."""
    region = model.region(RADIUS) if region is None else region
    return solve(model, region.pinned(np.zeros_like(model.at), low <= NOTHING), None, proximity)
