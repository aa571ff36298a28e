"""What a merge method is: pure functions on stretches of tensors, and a row that says what it takes and obeys."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from vlsurgery.surgery.methods.random_masks import kept, key_of, uniform
from vlsurgery.surgery.runtime.arrays import BFLOAT16, as_numpy, compute_dtype, upcast

if TYPE_CHECKING:
    from torch import Tensor

Made = TypeVar("Made", covariant=True)

# Entries worked on at a time: so few that they take little memory, so many that threads seldom wait for each other to
# get hold of Python.
CHUNK_SIZE: Final = 1 << 20

# What a method promises, and tests/surgery/methods/test_methods.py holds every row to:
# identity: all weights 0 give the base, bit for bit. endpoint: one weight 1 and the rest 0 give that model, bit for
# bit. equal_inputs: when all tensors are equal, so is the result. zero_delta: models equal to the base give the base.
# linear: the move from the base is proportional to the weights, and the moves that they ask for add up. scaling: all
# tensors times two (a power of two rounds nothing) give the result times two. permutation: the order of the models does
# not matter. entries: the order of a tensor's entries does not matter. between: each entry lies between the least and
# the largest of the inputs.
Property = Literal[
    "identity", "endpoint", "equal_inputs", "zero_delta", "linear", "scaling", "permutation", "entries", "between"
]


@dataclass(frozen=True)
class Parameter:
    """One setting of a method. `meaning` in a few words; `default`: None where it must be given; low, high: the range,
    both allowed; per_model: whether each model may have a value of its own; whole: whether nothing lies between."""

    meaning: str
    default: float | bool | None = None
    low: float = -math.inf
    high: float = math.inf
    per_model: bool = False
    whole: bool = False

    @property
    def is_switch(self) -> bool:
        return isinstance(self.default, bool)


@dataclass(frozen=True, slots=True)
class Settings:
    """A method's settings at one site: a coefficient per model, and the values of its parameters; those that are
    per model as name -> value."""

    coefficients: Mapping[str, float]
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


@dataclass(frozen=True)
class Chunk:
    """A stretch of one site in every model.

    names: the models', sorted. stored: a matrix: a row for each model, and a last one for what deltas are taken from,
    where there is such; bfloat16 by its bits, as uint16. start: where the stretch starts in the site, in row-major
    order. width: entries a row of the site. seed, site: what randomness is keyed by. memory: to compute in; None takes
    new memory.

    What is stored is converted when it is asked for, into float32 (float64 where the weights are): what nobody looks at
    costs nothing, and pushes nothing else out of the processor's cache.
    """

    names: tuple[str, ...]
    stored: np.ndarray
    start: int
    width: int
    seed: int = 0
    site: str = ""
    memory: "ChunkScratch | None" = None

    def __len__(self) -> int:
        return self.stored.shape[1]

    @cached_property
    def models(self) -> Mapping[str, np.ndarray]:
        """Name -> vector."""
        return dict(zip(self.names, self._exact(0, len(self.names)), strict=True))

    @cached_property
    def origin(self) -> np.ndarray:
        """The base, where the method can't do without."""
        return self._exact(self._last, self._last + 1)[0]

    @cached_property
    def vectors(self) -> Mapping[str, np.ndarray]:
        """Name -> what is stored of a model, for compiled code."""
        return dict(zip(self.names, self.stored, strict=False))

    @property
    def base(self) -> np.ndarray:
        """What is stored of the base, for compiled code."""
        return self.stored[self._last]

    @property
    def _last(self) -> int:
        assert len(self.stored) > len(self.names)
        return len(self.names)

    def room(self, name: str) -> np.ndarray:
        """Memory for what is made of one model: it is the caller's until it asks the same block again, for this or for
        the model's move."""
        return self._made[self.names.index(name)]

    def move(self, name: str) -> np.ndarray:
        """How far a model is from the base, in its room."""
        from vlsurgery.surgery.runtime.jit import subtract

        made = self.room(name)
        subtract(self.base, self.vectors[name], made)
        return made

    @cached_property
    def _made(self) -> np.ndarray:
        if self.memory is None:
            return np.empty((len(self.names), len(self)), compute_dtype([self.stored.dtype]))
        return self.memory.made[:, : len(self)]

    def chance(self, name: str) -> np.ndarray:
        """A random number of 16 bits for each entry of one model: the same ones however the site is cut into blocks."""
        return uniform(key_of(self.seed, self.site, name), self.start, len(self))

    def kept(self, name: str, steps: int) -> np.ndarray:
        """For each entry of one model, whether it is kept, with a probability of `steps` / 65536."""
        return kept(key_of(self.seed, self.site, name), self.start, len(self), steps)

    def _exact(self, first: int, stop: int) -> np.ndarray:
        """The rows `first` to `stop` in the dtype that is computed with: as stored where that is it."""
        rows = self.stored[first:stop]
        if rows.dtype != BFLOAT16:
            return rows
        made = np.empty(rows.shape, np.float32) if self.memory is None else self.memory.read[first:stop, : len(self)]
        for row, out in zip(rows, made, strict=True):
            upcast(row, out)
        return made


class ChunkScratch(NamedTuple):
    """What a block computes in, rows of the dtype that is computed with. read: what is stored, converted; a row for
    each of its rows. made: what becomes of it; a row for each model."""

    read: np.ndarray
    made: np.ndarray


class Stream(Protocol):
    """A site in every model, gone through block by block as often as a method needs."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def numel(self) -> int: ...

    def map(self, function: Callable[[Chunk], Made]) -> Iterator[Made]:
        """`function` of every block, in order; on several cores where the site is large."""

    def read(self, start: int, stop: int) -> Chunk:
        """The entries `start` to `stop`, in memory of their own."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    combine: a block, the settings and what the survey found -> the merged block, in the block's own precision. Pure: it
        changes none of its inputs. survey: looks at the whole site first, where a method needs to (norms, ranks).
    formula: in words that fit a model card. source: the paper. laws: what it obeys.
    needs_base: whether deltas are taken from a base; otherwise there must be none. models: fewest and most models
    beside it. slots: the names that its models must have, where each has a part of its own to play.
    coefficient: what a model's coefficient may be. parameters: name -> parameter. whole_rows: whether chunks must be
    whole rows.
    """

    combine: Callable[[Chunk, Settings, Any], np.ndarray]
    formula: str
    source: str
    properties: tuple[Property, ...]
    needs_base: bool
    coefficient: Parameter
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    prepare: Callable[[Stream, Settings], Any] | None = None
    models: tuple[int, int | None] = (1, None)
    named_inputs: tuple[str, ...] = ()
    whole_rows: bool = False

    def merge(
        self,
        models: Mapping[str, "Tensor"],
        base: "Tensor | None" = None,
        coefficients: Mapping[str, float] | float | None = None,
        seed: int = 0,
        site: str = "",
        chunk: int = CHUNK_SIZE,
        **parameters: Any,
    ) -> "Tensor":
        """Merge tensors that are in memory: the method as a function.

        models: name -> tensor, all of one shape. base: what deltas are taken from, where the method needs one.
        coefficients: name -> coefficient, or one for all. parameters: by name; one that is per model as name -> value,
        or one for all.
        seed, site: what a random method draws by. block: entries at a time; it never changes the result.

        Computed in float32 (float64 where the weights are) and returned in the dtype of the base, or else of the first
        model by name, rounded to nearest even.
        """
        import torch

        names = sorted(models)
        stored = base if base is not None else models[names[0]]
        given = self.coefficient.default if coefficients is None else coefficients
        settings = Settings(
            {name: given[name] if isinstance(given, Mapping) else float(given or 0) for name in names},
            {name: _spread(parameter, parameters, name, names) for name, parameter in self.parameters.items()},
        )
        rows = [models[name] for name in names] + ([] if base is None else [base])
        exact = torch.float64 if any(row.dtype == torch.float64 for row in rows) else torch.float32
        vectors = [as_numpy(row.to("cpu", exact)) for row in rows]
        held = InMemoryStream(tuple(names), tuple(stored.shape), vectors, seed, site, chunk, self.whole_rows)
        state = self.prepare(held, settings) if self.prepare else None
        merged = np.concatenate([self.combine(stretch, settings, state) for stretch in held.chunks()])
        return torch.from_numpy(merged).view(stored.shape).to(stored)


def _spread(parameter: Parameter, given: Mapping[str, Any], name: str, models: list[str]) -> Any:
    """A parameter's value; for every model where it is per model."""
    value = given.get(name, parameter.default)
    if not parameter.per_model or isinstance(value, Mapping):
        return value
    return dict.fromkeys(models, value)


@dataclass(frozen=True)
class InMemoryStream:
    """A stream of vectors that are in memory, of tensors of one shape: the models', by their names, and the base's,
    where there is one."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    vectors: Sequence[np.ndarray]
    seed: int
    site: str
    chunk: int
    whole_rows: bool

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def chunks(self) -> Iterator[Chunk]:
        step = chunk_size(self.shape, self.whole_rows, self.chunk)
        return (self.read(start, min(start + step, self.numel)) for start in range(0, self.numel, step))

    def map(self, function: Callable[[Chunk], Made]) -> Iterator[Made]:
        return map(function, self.chunks())

    def read(self, start: int, stop: int) -> Chunk:
        rows = np.stack([vector[start:stop] for vector in self.vectors])
        return Chunk(self.names, rows, start, width_of(self.shape), self.seed, self.site)


def width_of(shape: tuple[int, ...]) -> int:
    """Entries a row; a vector is one row."""
    return shape[-1] if shape else 1


def chunk_size(shape: tuple[int, ...], whole_rows: bool, size: int = CHUNK_SIZE) -> int:
    """How many entries are worked on at a time: `size`, or as many whole rows as come near it."""
    width = max(1, width_of(shape))
    return max(1, size // width) * width if whole_rows else size
