"""What a merge method is: pure functions of chunks of tensors, and a row that states its inputs and its properties."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from vlsurgery.surgery.runtime.arrays import BFLOAT16, as_numpy, compute_dtype, upcast

if TYPE_CHECKING:
    from torch import Tensor

Made = TypeVar("Made", covariant=True)

# Entries of a chunk: few enough to take little memory, enough that threads seldom wait for the interpreter's lock.
CHUNK_SIZE: Final = 1 << 20

# What a method promises; tests/surgery/methods/test_methods.py holds every row to it.
# identity: all coefficients 0 give the base, bit for bit. endpoint: one coefficient 1 and the rest 0 give that model,
# bit for bit. equal_inputs: when all tensors are equal, so is the result. zero_delta: models equal to the base give the
# base. linear: the delta of the result is proportional to the coefficients, and the deltas of several models add up.
# scaling: all tensors times two (a power of two rounds nothing) give the result times two. permutation: the order of
# the models does not matter. entries: the order of a tensor's entries does not matter. between: each entry lies between
# the least and the largest of the inputs.
Property = Literal[
    "identity", "endpoint", "equal_inputs", "zero_delta", "linear", "scaling", "permutation", "entries", "between"
]


@dataclass(frozen=True)
class Parameter:
    """One setting of a method, with all that a command line needs to offer it.

    meaning: in a few words. default: None where a value must be given. low, high: the range, both allowed. per_model:
    whether each model may have a value of its own. whole: whether only integers are allowed. negative: the name of the
    option that turns a switch off, where it is not `no-` and the parameter's name.
    """

    meaning: str
    default: float | bool | None = None
    low: float = -math.inf
    high: float = math.inf
    per_model: bool = False
    whole: bool = False
    negative: str = ""

    @property
    def is_switch(self) -> bool:
        return isinstance(self.default, bool)


# A coefficient below 0 would subtract a model, which is how refusals are removed from one: no method allows it. What a
# method subtracts by its own formula (`safety`) it does whatever the coefficients are. Values above 1, of coefficients
# and lambda, extrapolate beyond a model. `vlsurgery evaluate` measures what comes of all these.
COEFFICIENT: Final = Parameter("how much of the model goes in", 1.0, low=0.0)


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
    """A range of entries of one site in every model.

    names: the models', sorted. stored: a matrix with a row for each model, and a last one for the base where there is
    one; bfloat16 by its bits, as uint16. start: the first entry's place in the site, in row-major order. width: entries
    a row of the site. seed, site: the key of random numbers. memory: scratch to compute in; None allocates.

    Stored entries are converted to float32 (float64 where the weights are) on first use, so that a method that reads
    only stored vectors converts nothing.
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
        """Name -> vector, converted."""
        return dict(zip(self.names, self._converted(0, len(self.names)), strict=True))

    @cached_property
    def origin(self) -> np.ndarray:
        """The base, converted."""
        return self._converted(len(self.names), len(self.stored))[0]

    @cached_property
    def stored_models(self) -> Mapping[str, np.ndarray]:
        """Name -> vector as stored, for compiled code."""
        return dict(zip(self.names, self.stored, strict=False))

    @property
    def stored_base(self) -> np.ndarray:
        """The base as stored, for compiled code."""
        return self.stored[len(self.names)]

    def buffer(self, name: str) -> np.ndarray:
        """Scratch for a result that is made from one model, uninitialised. The next call for this model and chunk, and
        `delta`, use the same memory."""
        return self._buffers[self.names.index(name)]

    def delta(self, name: str) -> np.ndarray:
        """A model minus the base, in the model's buffer."""
        from vlsurgery.surgery.runtime.jit import subtract

        out = self.buffer(name)
        subtract(self.stored_base, self.stored_models[name], out)
        return out

    @cached_property
    def _buffers(self) -> np.ndarray:
        if self.memory is None:
            return np.empty((len(self.names), len(self)), compute_dtype([self.stored.dtype]))
        return self.memory.made[:, : len(self)]

    def _converted(self, first: int, stop: int) -> np.ndarray:
        """The rows `first` to `stop` in the dtype that is computed in; without a copy where they are stored so."""
        rows = self.stored[first:stop]
        if rows.dtype != BFLOAT16:
            return rows
        out = np.empty(rows.shape, np.float32) if self.memory is None else self.memory.read[first:stop, : len(self)]
        for row, made in zip(rows, out, strict=True):
            upcast(row, made)
        return out


class ChunkScratch(NamedTuple):
    """A chunk's scratch, rows of the dtype that is computed in. read: stored rows converted, the base's too. made:
    results, a row for each model."""

    read: np.ndarray
    made: np.ndarray


class Stream(Protocol):
    """A site in every model, read chunk by chunk as often as a method needs."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def numel(self) -> int: ...

    def map(self, function: Callable[[Chunk], Made]) -> Iterator[Made]:
        """`function` of every chunk, in order; on several cores where the site is large."""

    def read(self, start: int, stop: int) -> Chunk:
        """The entries `start` to `stop`, in memory of their own."""


@dataclass(frozen=True)
class Method:
    """A row of the registry.

    combine: a chunk, the settings and the state -> the merged chunk, in the dtype that is computed in. Pure: it changes
        none of its inputs. prepare: reads the whole site first and returns the state (norms, ranks), where needed.
    formula: in words that fit a model card. source: the paper. properties: the laws that it obeys.
    needs_base: whether deltas are taken from a base; otherwise there must be none. models: fewest and most models
    beside the base. named_inputs: the names that its models must have, where their parts differ.
    coefficient: what a model's coefficient may be. parameters: name -> parameter. whole_rows: whether chunks must be
    whole rows.
    """

    combine: Callable[[Chunk, Settings, Any], np.ndarray]
    formula: str
    source: str
    properties: tuple[Property, ...]
    needs_base: bool = True
    coefficient: Parameter = COEFFICIENT
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
        """Merge tensors that are in memory.

        models: name -> tensor, all of one shape. base: what deltas are taken from, where the method needs one.
        coefficients: name -> coefficient, or one for all. parameters: by name; one that is per model as name -> value,
        or one for all. seed, site: the key of random numbers. chunk: entries at a time; the result never depends on it.

        Computed in float32 (float64 where the weights are) and returned in the dtype of the base, or else of the first
        model by name, rounded to nearest even.
        """
        import torch

        names = sorted(models)
        like = base if base is not None else models[names[0]]
        given = self.coefficient.default if coefficients is None else coefficients
        values = {name: parameters.get(name, each.default) for name, each in self.parameters.items()}
        for name, each in self.parameters.items():
            if each.per_model and not isinstance(values[name], Mapping):
                values[name] = dict.fromkeys(names, values[name])
        given = {name: given[name] if isinstance(given, Mapping) else float(given or 0) for name in names}
        settings = Settings(given, values)
        rows = [models[name] for name in names] + ([] if base is None else [base])
        dtype = torch.float64 if any(row.dtype == torch.float64 for row in rows) else torch.float32
        vectors = [as_numpy(row.to("cpu", dtype)) for row in rows]
        stream = InMemoryStream(tuple(names), tuple(like.shape), vectors, seed, site, chunk, self.whole_rows)
        state = self.prepare(stream, settings) if self.prepare else None
        merged = np.concatenate([self.combine(each, settings, state) for each in stream.chunks()])
        return torch.from_numpy(merged).view(like.shape).to(like)


@dataclass(frozen=True)
class InMemoryStream:
    """A stream of vectors in memory: the models' in the order of their names, then the base's where there is one."""

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
    """Entries of a chunk: `size`, or the whole rows that fit into it, at least one."""
    width = max(1, width_of(shape))
    return max(1, size // width) * width if whole_rows else size
