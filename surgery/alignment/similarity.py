"""How alike two tensors are, by a sample of what they hold.

Checkpoints of one family hold nearly the same values, so a handful of entries tells partners from strangers, whatever
their names. Where there are too few entries, or all are the same, nothing is said.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.layouts import SiteViews, TensorView
from vlsurgery.surgery.architecture.site import Site

if TYPE_CHECKING:
    from torch import Tensor

# Entries of a tensor that are compared: at this many, strangers have cosines of 0 to within .02.
SAMPLE: Final = 4096

# Of short tensors, several layers are taken together; with fewer entries than this, chance would tell.
LAYERS: Final = 8
SHORTEST: Final = 12

# Cosines of the samples, each less its mean: .99 and more between partners, unless a delta is as large as the weights
# (then .7). A weight stored with its rows in another order keeps a few of them in place, so it can have .5 in a small
# model. STRANGERS is also by how much a partner must lead before all others.
PARTNERS: Final = 0.7
STRANGERS: Final = 0.2

# Shorter ones are compared only among the few that stand in one module. Partners differ by at most CLOSE of what their
# entries differ among themselves, and all others by more and by CLEAR times as much; from FAR on they are strangers.
# With fewer entries than FEWEST, chance would tell all the same.
FEWEST: Final = 4
CLOSE: Final = 0.05
CLEAR: Final = 10
FAR: Final = 0.5

Read = Callable[[str, TensorView, int], "Tensor"]


@dataclass
class Likeness:
    """What is compared of two roles' tensors.

    like, other: roles. roles: role -> site -> part. shapes: role -> name -> shape. read: entries of a part,
    (role, part, how many) -> vector.
    """

    like: str
    other: str
    roles: Mapping[str, SiteViews]
    shapes: Mapping[str, Mapping[str, Shape]]
    read: Read
    _samples: dict[tuple[str, str, str], "Tensor"] = field(default_factory=dict)

    def cosine(self, mine: Sequence[Site], theirs: Sequence[Site]) -> float | None:
        """Cosine of samples of two rows of tensors, each tensor less its mean, in [-1, 1]; None where one is constant,
        or where there is too little to compare."""
        import torch

        pieces: list[tuple[torch.Tensor, torch.Tensor]] = []
        for first, second in zip(mine, theirs, strict=True):
            samples = (self._sample(self.like, first), self._sample(self.other, second))
            pieces.append((_centred(samples[0]), _centred(samples[1])))
            if sum(len(piece[0]) for piece in pieces) >= SAMPLE or len(pieces) >= LAYERS:
                break
        ours, others = (torch.cat(side) for side in zip(*pieces, strict=True))
        norm = float(ours.norm() * others.norm())
        if len(ours) != len(others) or len(ours) < SHORTEST or not math.isfinite(norm) or norm == 0:
            return None
        return float(ours @ others) / norm

    def distance(self, mine: Site, theirs: Site) -> float | None:
        """The difference of two short vectors, in units of how much the entries of the more varied one differ among
        themselves: 0 where they are equal, 1 or so between strangers. None where an entry comes back (what is rounded
        is often alike by chance), or where there are too few."""
        first, second = self._sample(self.like, mine), self._sample(self.other, theirs)
        if len(first) != len(second) or len(first) < FEWEST:
            return None
        if any(len(vector.unique()) < len(vector) for vector in (first, second)):
            return None
        spread = max(float((vector - vector.mean()).norm()) for vector in (first, second))
        return float((first - second).norm()) / spread if math.isfinite(spread) else None

    def apart(self, mine: Site, theirs: Site) -> bool:
        """Whether two short vectors are clearly different: by what their entries differ among themselves, and by what
        they hold in all, because around one mean (norms hardly trained) any change is as large as the rest."""
        distance = self.distance(mine, theirs)
        if distance is None or distance < FAR:
            return False
        first, second = self._sample(self.like, mine), self._sample(self.other, theirs)
        return float((first - second).norm()) >= FAR * min(float(first.norm()), float(second.norm()))

    def shape(self, role: str, site: Site) -> Shape:
        part = self.roles[role][site]
        return part.shape(self.shapes[role][part.name])

    def _sample(self, role: str, site: Site) -> "Tensor":
        part = self.roles[role][site]
        key = (role, part.name, str(part.slices))
        if key not in self._samples:
            self._samples[key] = self.read(role, part, min(SAMPLE, math.prod(self.shape(role, site)))).double()
        return self._samples[key]


def least(entries: int) -> float:
    """The cosine of that many entries from which on chance, among all the tensors that could be partners, is ruled
    out."""
    return PARTNERS if entries >= 256 else 0.9 if entries >= 64 else 0.98


def _centred(vector: "Tensor") -> "Tensor":
    """A vector less its mean: exactly 0 where all entries are the same, whatever rounding makes of their mean."""
    return vector - vector.mean() if (vector != vector[:1]).any() else vector - vector
