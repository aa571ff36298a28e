"""What a merge method is: pure functions on stretches of tensors, and a row that says what it takes and obeys."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from surgery.methods.chance import kept, key_of, uniform

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Made = TypeVar("Made", covariant=True)

# Entries worked on at a time: what is computed of them stays in the processor's cache.
BLOCK: Final = 1 << 18

# What a method promises, and tests/surgery/test_methods.py holds every row to:
# identity: all weights 0 give the base, bit for bit. endpoint: one weight 1 and the rest 0 give that model, bit for
# bit. equal_inputs: when all tensors are equal, so is the result. zero_delta: models equal to the base give the base.
# linear: the move from the base is proportional to the weights, and the moves that they ask for add up. scaling: all
# tensors times two (a power of two rounds nothing) give the result times two. permutation: the order of the models does
# not matter. entries: the order of a tensor's entries does not matter. between: each entry lies between the least and
# the largest of the inputs.
Law = Literal[
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
    """What a method is told about one site: a weight per model, and the values of its parameters, those that each model
    has of its own as name -> value."""

    weights: Mapping[str, float]
    values: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


@dataclass(frozen=True)
class Block:
    """A stretch of one site in every model.

    names: the models', sorted. stored: a matrix: a row for each model, and a last one for what deltas are taken from,
    where there is such. start: where the stretch starts in the site, in row-major order. width: entries a row of the
    site. seed, site: what randomness is keyed by. memory: to compute in; None takes new memory.

    What is stored is converted when it is asked for, into float32 (float64 where the weights are): what nobody looks at
    costs nothing, and pushes nothing else out of the processor's cache.
    """

    names: tuple[str, ...]
    stored: "Tensor"
    start: int
    width: int
    seed: int = 0
    site: str = ""
    memory: "Memory | None" = None

    @cached_property
    def models(self) -> "Mapping[str, Tensor]":
        """Name -> vector."""
        return dict(zip(self.names, self._exact(0, len(self.names)).unbind(), strict=True))

    @cached_property
    def origin(self) -> "Tensor":
        """The base, where the method can't do without."""
        assert len(self.stored) > len(self.names)
        return self._exact(len(self.names), len(self.stored))[0]

    @cached_property
    def vectors(self) -> "Mapping[str, np.ndarray]":
        """Name -> what is stored of a model, for compiled code."""
        return dict(zip(self.names, self._bits, strict=False))

    @property
    def base(self) -> np.ndarray:
        """What is stored of the base, for compiled code."""
        assert len(self.stored) > len(self.names)
        return self._bits[-1]

    @cached_property
    def _bits(self) -> tuple[np.ndarray, ...]:
        from surgery.methods.kernels import bits

        return tuple(bits(row) for row in self.stored.unbind())

    def room(self, name: str) -> "Tensor":
        """Memory for what is made of one model: it is the caller's until it asks the same block again, for this or for
        moves."""
        return self._made(len(self.names))[self.names.index(name)]

    def moves(self, names: Collection[str]) -> "Tensor":
        """How far models are from the base: a row for each that is named, in the block's order. The memory is the
        caller's until it asks the same block again."""
        from surgery.methods.kernels import moves

        wanted = tuple(self.vectors[name] for name in self.names if name in names)
        made = self._made(len(wanted))
        moves(self.base, wanted, tuple(row.numpy() for row in made.unbind()))
        return made

    def _made(self, rows: int) -> "Tensor":
        import torch

        if self.memory is None:
            return torch.empty(rows, self.stored.shape[1], dtype=working_dtype((self.stored.dtype,)))
        return self.memory.made[:rows, : self.stored.shape[1]]

    def deltas(self) -> "Iterator[tuple[str, Tensor]]":
        """How far each model is from the base, in the memory of `moves`."""
        return zip(self.names, self.moves(self.names).unbind(), strict=True)

    def chance(self, name: str) -> np.ndarray:
        """A random number of 16 bits for each entry of one model: the same ones however the site is cut into blocks."""
        return uniform(key_of(self.seed, self.site, name), self.start, self.stored.shape[1])

    def kept(self, name: str, steps: int) -> np.ndarray:
        """For each entry of one model, whether it is kept, with a probability of `steps` / 65536."""
        return kept(key_of(self.seed, self.site, name), self.start, self.stored.shape[1], steps)

    def _exact(self, first: int, stop: int) -> "Tensor":
        """The rows `first` to `stop` in the dtype that is computed with: as stored where that is it."""
        rows = self.stored[first:stop]
        dtype = working_dtype((rows.dtype,))
        if self.memory is None or rows.dtype == dtype:
            return rows.to(dtype)
        return self.memory.read[first:stop, : rows.shape[1]].copy_(rows)


class Memory(NamedTuple):
    """What a block computes in, rows of the dtype that is computed with. read: what is stored, converted; a row for
    each of its rows. made: what becomes of it; a row for each model."""

    read: "Tensor"
    made: "Tensor"


class Stream(Protocol):
    """A site in every model, gone through block by block as often as a method needs."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def numel(self) -> int: ...

    def map(self, function: Callable[[Block], Made]) -> Iterator[Made]:
        """`function` of every block, in order; on several cores where the site is large."""

    def read(self, start: int, stop: int) -> Block:
        """The entries `start` to `stop`, in memory of their own."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    combine: a block, the settings and what the survey found -> the merged block, in the block's own precision. Pure: it
        changes none of its inputs. survey: looks at the whole site first, where a method needs to (norms, ranks).
    formula: in words that fit a model card. source: the paper. laws: what it obeys.
    needs_base: whether deltas are taken from a base; otherwise there must be none. models: fewest and most models
    beside it. slots: the names that its models must have, where each has a part of its own to play.
    weight: what a model's weight may be. parameters: name -> parameter. rows: whether blocks must be whole rows.
    """

    combine: Callable[[Block, Settings, Any], "Tensor"]
    formula: str
    source: str
    laws: tuple[Law, ...]
    needs_base: bool
    weight: Parameter
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    survey: Callable[[Stream, Settings], Any] | None = None
    models: tuple[int, int | None] = (1, None)
    slots: tuple[str, ...] = ()
    rows: bool = False

    def merge(
        self,
        models: Mapping[str, "Tensor"],
        base: "Tensor | None" = None,
        weights: Mapping[str, float] | float | None = None,
        seed: int = 0,
        site: str = "",
        block: int = BLOCK,
        **parameters: Any,
    ) -> "Tensor":
        """Merge tensors that are in memory: the method as a function.

        models: name -> tensor, all of one shape. base: what deltas are taken from, where the method needs one. weights:
        name -> weight, or one for all. parameters: by name; one that is per model as name -> value, or one for all.
        seed, site: what a random method draws by. block: entries at a time; it never changes the result.

        Computed in float32 (float64 where the weights are) and returned in the dtype of the base, or else of the first
        model by name, rounded to nearest even.
        """
        import torch

        names = sorted(models)
        stored = base if base is not None else models[names[0]]
        given = self.weight.default if weights is None else weights
        settings = Settings(
            {name: given[name] if isinstance(given, Mapping) else float(given or 0) for name in names},
            {name: _spread(parameter, parameters, name, names) for name, parameter in self.parameters.items()},
        )
        rows = [models[name] for name in names] + ([] if base is None else [base])
        exact = working_dtype(row.dtype for row in rows)
        held = Held(tuple(names), [row.to(exact) for row in rows], seed, site, block, self.rows)
        facts = self.survey(held, settings) if self.survey else None
        merged = torch.cat([self.combine(stretch, settings, facts) for stretch in held.blocks()])
        return merged.view(stored.shape).to(stored.dtype)


def _spread(parameter: Parameter, given: Mapping[str, Any], name: str, models: list[str]) -> Any:
    """A parameter's value; for every model where it is per model."""
    value = given.get(name, parameter.default)
    if not parameter.per_model or isinstance(value, Mapping):
        return value
    return dict.fromkeys(models, value)


@dataclass(frozen=True)
class Held:
    """A stream of tensors that are in memory: the models', by their names, and the base's, where there is one."""

    names: tuple[str, ...]
    tensors: "Sequence[Tensor]"
    seed: int
    site: str
    block: int
    rows: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors[0].shape)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def blocks(self) -> Iterator[Block]:
        step = block_size(self.shape, self.rows, self.block)
        return (self.read(start, min(start + step, self.numel)) for start in range(0, self.numel, step))

    def map(self, function: Callable[[Block], Made]) -> Iterator[Made]:
        return map(function, self.blocks())

    def read(self, start: int, stop: int) -> Block:
        import torch

        rows = torch.stack([tensor.reshape(-1)[start:stop] for tensor in self.tensors])
        return Block(self.names, rows, start, width_of(self.shape), self.seed, self.site)


def width_of(shape: tuple[int, ...]) -> int:
    """Entries a row; a vector is one row."""
    return shape[-1] if shape else 1


def block_size(shape: tuple[int, ...], rows: bool, size: int = BLOCK) -> int:
    """How many entries are worked on at a time: `size`, or as many whole rows as come near it."""
    width = max(1, width_of(shape))
    return max(1, size // width) * width if rows else size


def working_dtype(stored: "Iterable[torch.dtype]") -> "torch.dtype":
    """What tensors of these dtypes are computed in: float32, or float64 where one of them is."""
    import torch

    return torch.float64 if torch.float64 in stored else torch.float32
