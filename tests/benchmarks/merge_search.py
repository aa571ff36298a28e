"""Coefficients as points of a search: one number a block and source, or few by depth; and searches that try them."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KNOTS: Final = 4  # a source and part, evenly spaced over the layers
OPTIMISER: Final = Path(__file__).with_name("optimiser.py")


class Family(Protocol):
    """Merges that a point of [0, 1]^size stands for."""

    @property
    def size(self) -> int: ...
    def coefficients(self, point: Floats) -> Floats:
        """[blocks, sources], in the hull of the parents."""

    def point(self, uniform: Sequence[float]) -> Floats:
        """The point of the uniform merge with one strength a source."""


@dataclass(frozen=True)
class Blocks:
    """One number a block and source."""

    blocks: tuple[str, ...]
    sources: int

    @property
    def size(self) -> int:
        return len(self.blocks) * self.sources

    def coefficients(self, point: Floats) -> Floats:
        return in_hull(np.asarray(point).reshape(len(self.blocks), self.sources))

    def point(self, uniform: Sequence[float]) -> Floats:
        return np.tile(np.asarray(uniform, np.float64), len(self.blocks))


@dataclass(frozen=True)
class DepthKnots:
    """KNOTS numbers a source and part (attention, MLP), interpolated over layers; one a source for what is in none."""

    blocks: tuple[str, ...]
    sources: int

    @property
    def size(self) -> int:
        return (2 * KNOTS + 1) * self.sources

    def coefficients(self, point: Floats) -> Floats:
        *knots, other = np.asarray(point).reshape(2 * KNOTS + 1, self.sources)
        attention, mlp = np.array(knots[:KNOTS]), np.array(knots[KNOTS:])
        layers = [int(block.split(".")[0]) for block in self.blocks if block[0].isdigit()]
        places = np.linspace(0, max(layers), KNOTS)
        rows = []
        for block in self.blocks:
            if not block[0].isdigit():
                rows.append(other)
                continue
            layer, part = int(block.split(".")[0]), block.split(".")[1]
            values = attention if part == "attn" else mlp
            rows.append(np.array([np.interp(layer, places, values[:, source]) for source in range(self.sources)]))
        return in_hull(np.array(rows))

    def point(self, uniform: Sequence[float]) -> Floats:
        return np.tile(np.asarray(uniform, np.float64), 2 * KNOTS + 1)


def in_hull(coefficients: Floats) -> Floats:
    """Coefficients of which those of a block that sum to more than 1 are divided by their sum."""
    return np.asarray(coefficients / np.maximum(1.0, coefficients.sum(1, keepdims=True)))


@contextmanager
def asking(python: Path, kind: str, start: Floats, seed: int) -> Iterator[Callable[[float | None], Floats]]:
    """A function that tells a search the value of its last point (None at first) and gives the next."""
    process = subprocess.Popen([str(python), str(OPTIMISER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin, process.stdout

    def send(message: object) -> None:
        to.write(json.dumps(message) + "\n")
        to.flush()

    def following(value: float | None) -> Floats:
        if value is not None:
            send(value)
        return np.array(json.loads(back.readline()), np.float64)

    try:
        send({"kind": kind, "start": start.tolist(), "seed": seed})
        yield following
    finally:
        to.close()
        process.wait()
        back.close()
