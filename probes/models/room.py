"""How many tokens a batch may have: by the room there is, and by half where memory ran out."""

import gc
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import torch
from torch import nn

from vlsurgery.probes.models.batches import Batch, Rows
from vlsurgery.probes.models.faults import is_out_of_memory
from vlsurgery.surgery.errors import SurgeryError

T = TypeVar("T")
MAX_BATCH_TOKENS: Final = {"cpu": 8192, "cuda": 65536}  # padding included; more makes nothing faster
MIN_BATCH_TOKENS: Final = 512
SHARE: Final = 0.5  # of the free memory that a batch may take by estimate
# Hidden states that a block keeps alive at once: residual, norms, queries, keys, values, scores.
LIVE_WIDTHS: Final = 12


def most_tokens(model: nn.Module, memory: int | None) -> int:
    """The tokens of a batch that is run without gradients. memory: bytes of model and batches; None is what is free.

    An estimate: what one block keeps alive, and keys and values of all, which generation keeps.
    """
    first = next(model.parameters(), None)
    kind = "cpu" if first is None else first.device.type
    most = MAX_BATCH_TOKENS.get(kind, MAX_BATCH_TOKENS["cuda"])
    config: Any = getattr(model, "config", None)
    free = _free_bytes(model, memory, kind)
    if first is None or config is None or free is None:
        return most
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", 0) or 0
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    layers = getattr(text, "num_hidden_layers", 0) or 0
    if not isinstance(hidden, int) or not isinstance(inner, int) or not hidden:
        return most
    each = first.element_size() * (LIVE_WIDTHS * hidden + 3 * inner + 2 * layers * hidden)
    return max(MIN_BATCH_TOKENS, min(most, int(SHARE * free) // each))


def _free_bytes(model: nn.Module, memory: int | None, kind: str) -> int | None:
    """The bytes that batches may take; None where nothing bounds them."""
    if memory is not None:
        return max(0, memory - sum(weight.nbytes for weight in model.parameters()))
    return int(torch.cuda.mem_get_info()[0]) if kind == "cuda" else None


class Room:
    """The bound on a batch's tokens, which falls where memory runs out."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def each(self, rows: Rows, size: int, work: Callable[[Batch], T]) -> Iterator[tuple[Batch, T]]:
        """Each batch with what `work` makes of it. Where memory runs out, the batch is halved and asked again.

        Raises SurgeryError where a single prompt does not fit.
        """
        waiting = rows.divided(size, self.tokens)[::-1]
        while waiting:
            index = waiting.pop()
            if len(index) > 1 and rows.tokens(index) > self.tokens:
                waiting += _halves(index)
                continue
            batch = rows.collated(index)
            done = _tried(work, batch)
            if done is not None:
                yield batch, done[0]
                continue
            if len(index) == 1:
                item = rows.encoded[index[0]]
                raise SurgeryError(
                    f"prompt {item.prompt.id} alone, of {rows.tokens(index):,} tokens, does not fit into memory beside "
                    "the model. Leave it out, ask for fewer --tokens, or take --dtype bfloat16 or a larger --device."
                )
            self.tokens = max(1, min(self.tokens, rows.tokens(index) // 2))
            waiting += _halves(index)


def _halves(index: list[int]) -> list[list[int]]:
    """The second half of a batch, then the first, which is taken next."""
    middle = (len(index) + 1) // 2
    return [index[middle:], index[:middle]]


def _tried(work: Callable[[Batch], T], batch: Batch) -> tuple[T] | None:
    """What the work makes of a batch; None where memory ran out, with what it held given back."""
    try:
        return (work(batch),)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect(1)  # the frames of the error held the tensors; what is old is none of it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
