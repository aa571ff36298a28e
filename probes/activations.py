"""Residual streams at the last instruction token and the post-instruction tokens.

Harmfulness is read at the last instruction token, refusal at the post-instruction tokens (arXiv 2507.11878), so both
are captured. Layer `l` is the residual stream after decoder block `l`, before the final norm.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vlsurgery.probes.models import Batch, ChatModel, Encoded, passes_text_on, residual_stream
from vlsurgery.probes.models.head import headless
from vlsurgery.surgery.errors import SurgeryError

INSTRUCTION = "instruction"  # the name of the last instruction token among positions


@dataclass(frozen=True)
class ResidualStreams:
    """Residual streams of a batch. values: [B, positions, layers, hidden] float32. index: rows in the sequence."""

    values: Tensor
    index: tuple[int, ...]


def position_names(encoded: Sequence[Encoded]) -> list[str]:
    """The captured positions: `instruction`, then each post-instruction token by its distance from the end.

    Raises SurgeryError where prompts differ in how many tokens the template puts behind the user's text.
    """
    posts = {item.post for item in encoded}
    if len(posts) != 1:
        raise SurgeryError(
            f"the chat template puts {sorted(posts)} tokens behind the user's text, depending on the prompt: the "
            "positions of different prompts can't be compared. Use a template whose ending is fixed."
        )
    post = posts.pop()
    return [INSTRUCTION, *(str(-distance) for distance in range(post, 0, -1))]


@contextmanager
def recording(blocks: Sequence[nn.Module], rows: Tensor, columns: Tensor) -> Iterator[list[Tensor]]:
    """While open, each forward pass appends [rows, hidden] of the residual stream behind every block, in block order.

    A block that leaves text without pictures as it is, and so did not run, passes on the state before it.
    rows, columns: index pairs of the tokens to keep. Raises RuntimeError if any other block did not run.
    """
    kept: list[Tensor | None] = [None] * len(blocks)

    def keep(at: int, module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:  # noqa: ARG001
        hidden = residual_stream(module, output).detach()
        flat = (rows * hidden.shape[1] + columns).reshape(-1).to(hidden.device)
        picked = hidden.flatten(0, 1).index_select(0, flat)  # in half the time that two index tensors take
        kept[at] = picked.unflatten(0, rows.shape)

    handles = [block.register_forward_hook(partial(keep, at)) for at, block in enumerate(blocks)]
    out: list[Tensor] = []
    try:
        yield out
        for at, block in enumerate(blocks[1:], 1):
            if kept[at] is None and passes_text_on(block):
                kept[at] = kept[at - 1]
        missing = [at for at, value in enumerate(kept) if value is None]
        if missing:
            raise RuntimeError(f"decoder blocks {missing} did not run, so their states were not captured")
        out.extend(value.float() for value in kept if value is not None)
    finally:
        for handle in handles:
            handle.remove()


def capture(chat: ChatModel, encoded: Sequence[Encoded], size: int = 32) -> Iterator[ResidualStreams]:
    """Residual streams of the prompts, one batch at a time, to bound memory; halves of it where that runs out.

    Positions as `position_names`. A batch of N gives the same as N singles. Raises SurgeryError on NaN or Inf.
    """
    positions = len(position_names(encoded))
    for batch, values in chat.each_batch(partial(_residual_streams, chat, positions), encoded, size=size):
        yield ResidualStreams(values, batch.index)


def _residual_streams(chat: ChatModel, positions: int, batch: Batch) -> Tensor:
    count = len(batch.index)
    offsets = torch.arange(-positions, 0)
    columns = (batch.lengths[:, None] + offsets).to(chat.device)
    rows = torch.arange(count, device=chat.device)[:, None].expand_as(columns)
    with torch.no_grad(), headless(chat), recording(chat.blocks, rows, columns) as states:
        chat.model(**batch.inputs, use_cache=False)
    values = torch.stack([state.cpu() for state in states], dim=2)
    if not values.sum().isfinite():  # for a fraction of the time of a mask; a sum of finite states may overflow
        broken = (~values.isfinite()).any(-1).any(1).any(0).nonzero()
        if len(broken):
            raise SurgeryError(
                f"the residual stream after layer {int(broken[0])} is not finite: the checkpoint is broken or overflows"
            )
    return values
