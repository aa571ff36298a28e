"""How fast this machine runs a model now, and how long work takes at that speed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from vlsurgery.cli.workflow.work import WRITTEN_ROWS, Work

if TYPE_CHECKING:
    import torch

MEASURED_SECONDS: Final = 0.15  # of each of the three kinds of product
ROWS: Final = 1024  # tokens of a large batch
# Calibrated on the miniature and on SmolLM2-135M, one thread, in the processor's seconds: what a model takes beside its
# products. Single parts of both are within 40%.
EFFICIENCY: Final = 0.55  # of a layer's products as they are run, beside bare ones
GRADIENT: Final = 6.0  # times as long as a forward pass that a forward and a backward pass take, for two sources
DELTAS: Final = 36.0  # sweeps over all weights that a batch with gradients takes, to read what the sources change
OPS_OF_A_LAYER: Final = 500.0  # small operations that calling a layer takes
WIDTHS: Final = 100.0  # sweeps over a token's hidden state that a layer takes beside products
ENCODING: Final = 350.0  # small operations that turning a prompt into tokens takes
PICTURE: Final = 2000.0  # and a picture into pixels
MOVES: Final = 7.0  # sweeps over a weight that moving it takes
LOAD_SECONDS: Final = 0.3  # of a checkpoint, beside its bytes
READ_BYTES: Final = 2e8  # in a second


@dataclass(frozen=True)
class ModelShape:
    """What of a model its time depends on.

    layers: of the language model. parameters: of these layers; head: of its head; vision: of its tower; all: of all.
    hidden: width. patches: of a picture in the tower. bytes_each: of a parameter as it runs.
    """

    layers: int
    hidden: int
    parameters: int
    head: int
    vision: int
    patches: int
    all: int
    bytes_each: int


@dataclass(frozen=True)
class Speed:
    """products: floating-point operations a second, of products of many rows; writing: of as many rows as are written
    at once. operation: seconds of a small operation. sweep: seconds for a parameter to be read and written once."""

    products: float
    writing: float
    operation: float
    sweep: float

    def seconds(self, work: Work, shape: ModelShape) -> float:
        """How long work takes."""
        each = 2 * shape.parameters
        tokens = work.forward_tokens + work.read_tokens + GRADIENT * work.gradient_tokens
        reading = tokens * each + 2 * shape.head * work.heads + 2 * shape.vision * shape.patches * work.pictures
        writing = work.written_tokens * (each + 2 * shape.head)
        operations = (work.calls + work.steps) * shape.layers * OPS_OF_A_LAYER
        operations += ENCODING * work.encoded + PICTURE * work.pictured
        swept = (tokens + work.written_tokens) * WIDTHS * shape.layers * shape.hidden
        weights = (work.moved * MOVES + work.backward * DELTAS) * shape.all
        moving = (weights + swept) * self.sweep
        loading = work.loads * (LOAD_SECONDS + shape.all * shape.bytes_each / READ_BYTES)
        products = (reading / self.products + writing / self.writing) / EFFICIENCY
        return products + operations * self.operation + moving + loading


@cache
def measured(hidden: int, dtype: "torch.dtype", device: str) -> Speed:
    """The speed of this machine as busy as it is now, in half a second."""
    import torch

    square = torch.full((hidden, 4 * hidden), 0.01, dtype=dtype, device=device)
    batch, rows = (torch.full((n, hidden), 0.5, dtype=dtype, device=device) for n in (ROWS, WRITTEN_ROWS))
    small = torch.full((8, 8), 0.5, dtype=dtype, device=device)
    flops = 2 * square.numel()
    return Speed(
        products=flops * ROWS / _seconds(lambda: batch @ square, device),
        writing=flops * WRITTEN_ROWS / _seconds(lambda: rows @ square, device),
        operation=_seconds(lambda: small @ small, device),
        sweep=_seconds(lambda: square.mul_(1.0), device) / square.numel(),
    )


def _seconds(work: Callable[[], object], device: str) -> float:
    """The mean time of a repetition, over MEASURED_SECONDS: a busy machine counts."""
    import torch

    def done() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    work()
    done()
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < MEASURED_SECONDS:
        for _ in range(4):
            work()
        done()
        count += 4
    return passed / count
