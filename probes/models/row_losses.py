"""Losses of single tokens from rows of logits, some rows at a time: their gradient is known, so that no float32 copies
of all logits are made on the way, neither forward nor back.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

CHUNK_ENTRIES: Final = 1 << 20  # of the logits that are computed at a time

# Rows from start to stop of the logits as float32 -> each row's loss and, where it is asked for, its gradient.
Chunk = Callable[[int, int, Tensor, bool], tuple[Tensor, Tensor | None]]


def surprisals(logits: Tensor, targets: Tensor) -> Tensor:
    """[K] -log p(target) in nats, float32. logits: [K, vocabulary]. targets: [K] token ids."""

    def chunk(start: int, stop: int, some: Tensor, graded: bool) -> tuple[Tensor, Tensor | None]:
        log_q, target = torch.log_softmax(some, -1), targets[start:stop, None]
        loss = -log_q.gather(1, target)[:, 0]
        if not graded:
            return loss, None
        return loss, log_q.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=log_q.dtype))

    found: Tensor = _RowLosses.apply(logits, chunk)
    return found


def divergences(logits: Tensor, reference: Tensor) -> Tensor:
    """[K] KL(reference || model) in nats, float32. Both [K, vocabulary] logits; the reference takes no gradient."""

    def chunk(start: int, stop: int, some: Tensor, graded: bool) -> tuple[Tensor, Tensor | None]:
        log_q, log_p = torch.log_softmax(some, -1), torch.log_softmax(reference[start:stop].to(some.dtype), -1)
        p = log_p.exp()
        loss = log_p.sub_(log_q).mul_(p).sum(-1)
        return loss, log_q.exp_().sub_(p) if graded else None

    found: Tensor = _RowLosses.apply(logits, chunk)
    return found


class _RowLosses(torch.autograd.Function):
    """Losses of rows; their gradient is kept in the logits' dtype."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, chunk: Chunk) -> Tensor:
        graded = ctx.needs_input_grad[0]
        step = max(1, CHUNK_ENTRIES // logits.shape[1])
        made = torch.promote_types(logits.dtype, torch.float32)
        losses = torch.empty(len(logits), dtype=made, device=logits.device)
        gradient = torch.empty_like(logits) if graded else None
        for start in range(0, len(logits), step):
            stop = min(start + step, len(logits))
            losses[start:stop], slope = chunk(start, stop, logits[start:stop].to(made), graded)
            if gradient is not None and slope is not None:
                gradient[start:stop] = slope
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0][:, None].to(gradient.dtype), None
