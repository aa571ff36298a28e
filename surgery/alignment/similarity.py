"""Similarity of two tensors, by a sample of their values.

Checkpoints of one family hold nearly the same values, so a sample of entries tells partners from unrelated tensors,
whatever their names. Samples that are too short, or constant, have no similarity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.layouts import SiteViews, TensorView
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import LazyTensor

if TYPE_CHECKING:
    from torch import Tensor

# Entries of a tensor that are compared: at this many, unrelated tensors have cosines of 0 to within .02.
SAMPLE_SIZE: Final = 4096

# Most layers of short tensors that are compared together, and least entries in all: fewer match by chance.
MAX_LAYERS: Final = 8
MIN_ENTRIES: Final = 12

# Least cosine of partners' samples, each less its mean: it is .99 and more, or .7 where a delta is as large as the
# weights; a weight with permuted rows keeps a few of them in place, and can have .5 in a small model. MARGIN: the least
# lead of the best cosine over the second.
MATCH_COSINE: Final = 0.7
MARGIN: Final = 0.2

# Vectors of MIN_SHORT_ENTRIES and more, but too short for cosines, are compared by `distance` within one module.
# MATCH_DISTANCE: largest of partners. DISTANCE_RATIO: how many times larger all other distances must be.
# UNRELATED_DISTANCE: least of unrelated vectors.
MIN_SHORT_ENTRIES: Final = 4
MATCH_DISTANCE: Final = 0.05
DISTANCE_RATIO: Final = 10
UNRELATED_DISTANCE: Final = 0.5

Read = Callable[[str, TensorView, int], "Tensor"]


def read_view(tensor: LazyTensor, view: TensorView, start: int, stop: int) -> "Tensor":
    """Entries `start` to `stop` of a view in row-major order, as a vector."""
    first, size = view.span(tensor.shape)
    if view.is_contiguous(tensor.shape):
        return tensor.read(first + start, first + stop)
    return view.view(tensor.read(first, first + size), tensor.shape).reshape(-1)[start:stop]


@dataclass
class Similarity:
    """Similarity of two roles' tensors.

    like, other: roles. roles: role -> site -> view. shapes: role -> name -> shape. read: the first entries of a
    view, (role, view, how many) -> vector.
    """

    like: str
    other: str
    roles: Mapping[str, SiteViews]
    shapes: Mapping[str, Mapping[str, Shape]]
    read: Read
    _samples: dict[tuple[str, str, str], "Tensor"] = field(default_factory=dict)

    def cosine(self, mine: Sequence[Site], theirs: Sequence[Site]) -> float | None:
        """Cosine of samples of two lists of tensors, each tensor less its mean, in [-1, 1]; None where one is constant
        or there are too few entries."""
        import torch

        pieces: list[tuple[torch.Tensor, torch.Tensor]] = []
        for first, second in zip(mine, theirs, strict=True):
            samples = (self._sample(self.like, first), self._sample(self.other, second))
            pieces.append((_centred(samples[0]), _centred(samples[1])))
            if sum(len(piece[0]) for piece in pieces) >= SAMPLE_SIZE or len(pieces) >= MAX_LAYERS:
                break
        ours, others = (torch.cat(side) for side in zip(*pieces, strict=True))
        norm = float(ours.norm() * others.norm())
        if len(ours) != len(others) or len(ours) < MIN_ENTRIES or not math.isfinite(norm) or norm == 0:
            return None
        return float(ours @ others) / norm

    def distance(self, mine: Site, theirs: Site) -> float | None:
        """Norm of the difference of two short vectors over the larger norm of one less its mean: 0 where equal, about
        1 where they are unrelated. None where an entry occurs twice (rounded entries are often equal by chance)
        or there are too few."""
        first, second = self._sample(self.like, mine), self._sample(self.other, theirs)
        if len(first) != len(second) or len(first) < MIN_SHORT_ENTRIES:
            return None
        if any(len(vector.unique()) < len(vector) for vector in (first, second)):
            return None
        spread = max(float((vector - vector.mean()).norm()) for vector in (first, second))
        return float((first - second).norm()) / spread if math.isfinite(spread) else None

    def is_unrelated(self, mine: Site, theirs: Site) -> bool:
        """Whether two short vectors clearly differ, relative to their spread and to their norm: where entries lie close
        to one mean (norms after little training), any change is as large as the spread."""
        distance = self.distance(mine, theirs)
        if distance is None or distance < UNRELATED_DISTANCE:
            return False
        first, second = self._sample(self.like, mine), self._sample(self.other, theirs)
        return float((first - second).norm()) >= UNRELATED_DISTANCE * min(float(first.norm()), float(second.norm()))

    def shape(self, role: str, site: Site) -> Shape:
        part = self.roles[role][site]
        return part.shape(self.shapes[role][part.name])

    def _sample(self, role: str, site: Site) -> "Tensor":
        part = self.roles[role][site]
        key = (role, part.name, str(part.slices))
        if key not in self._samples:
            self._samples[key] = self.read(role, part, min(SAMPLE_SIZE, math.prod(self.shape(role, site)))).double()
        return self._samples[key]


def min_cosine(entries: int) -> float:
    """Least cosine of that many entries which no unrelated tensor of a checkpoint reaches by chance."""
    return MATCH_COSINE if entries >= 256 else 0.9 if entries >= 64 else 0.98


def _centred(vector: "Tensor") -> "Tensor":
    """A vector less its mean; exactly 0 where all entries are equal, in spite of rounding."""
    return vector - vector.mean() if (vector != vector[:1]).any() else vector - vector
