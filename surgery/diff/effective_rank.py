"""The effective rank of a spectrum, from all singular values or from the leading ones and the energy of the rest."""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

NUM_GRID_POINTS: Final = 512  # sums of the tail that bounds are minimised and maximised over
MAX_TAIL_POWER: Final = 200.0  # a steeper tail would vanish in float64


class EffectiveRank(NamedTuple):
    """An effective rank and its lower and upper bound; all three are equal where every singular value is known."""

    value: float
    low: float
    high: float


def effective_rank(values: Tensor) -> float:
    """exp(H), H being the entropy of s_i / sum s (Roy and Vetterli 2007, "The effective rank"): 1 if only one value is
    not 0, n if n values are equal."""
    shares = values.double() / values.double().sum()
    return math.exp(float(torch.special.entr(shares).sum()))


def estimated_rank(values: Tensor, tail_energy: float, most: float, count: int) -> EffectiveRank:
    """The effective rank of a spectrum whose leading values alone are known.

    values: the leading ones. tail_energy: sum of squares T of the others, `count` of them (N), none above `most` (c).

    Bounds, taking `values` as they are: the others sum to a t between T/c, where they are as few and as large as can
    be, and sqrt(T N), where all are equal. With h the binary entropy of the share w = t / (sum + t) that they have of
    the whole, the entropy is h(w) + (1 - w) H(values) + w H(others), and t^2/T <= exp(H(others)) <= N: the first is
    the effective rank by Renyi's entropy of order two, which is never larger. The bounds are the extremes over t.

    The estimate continues from the last known value s as s (1 - x)^b, x running from 0 to 1 over the N others, with
    the b that gives them their energy.
    """
    head = float(values.double().sum())
    if tail_energy <= 0 or count <= 0 or most <= 0:
        rank = effective_rank(values)
        return EffectiveRank(rank, rank, rank)
    inner = math.log(effective_rank(values))
    least, greatest = tail_energy / most, math.sqrt(tail_energy * count)
    sums = torch.linspace(min(least, greatest), greatest, NUM_GRID_POINTS, dtype=torch.float64)
    share = sums / (head + sums)
    mixed = torch.special.entr(share) + torch.special.entr(1 - share) + (1 - share) * inner
    low = math.exp(float((mixed + share * (2 * sums.log() - math.log(tail_energy)).clamp_min(0)).min()))
    high = max(low, math.exp(float((mixed + share * math.log(count)).max())))
    rank = effective_rank(torch.cat((values.double(), _power_tail(values, tail_energy, count))))
    return EffectiveRank(min(high, max(low, rank)), low, high)


def _power_tail(values: Tensor, energy: float, count: int) -> Tensor:
    last = float(values[-1])
    power = min(MAX_TAIL_POWER, max(0.0, (count * last * last / energy - 1) / 2))
    tail = (1 - (torch.arange(count, dtype=torch.float64) + 0.5) / count) ** power
    return tail * math.sqrt(energy / float(tail.square().sum()))
