"""What linear layers, embedding and head read and make in a pass with gradients, so that their weights' own gradients
need not be made: each is as large as the weight itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.forward import Forward, calling

Watcher = Callable[[Tensor, Tensor], None]


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module computes what nn.Linear does, and nothing besides."""
    plain = type(module).forward is nn.Linear.forward and "forward" not in vars(module)
    return isinstance(module, nn.Linear) and plain and isinstance(module.weight, nn.Parameter)


@contextmanager
def folding_linear(module: nn.Module, told: Watcher) -> Iterator[None]:
    """While open, `told` gets what a layer reads and the gradient of what it makes, in place of its weight's gradient.

    Where another module reads the weight past the layer, the gradient of that is made as ever.
    """

    def folding(forward: Forward) -> Forward:  # noqa: ARG001
        def folded(input: Tensor) -> Any:
            return _FoldedLinear.apply(input, module.weight, module.bias, told)

        return folded

    with calling(module, "forward", folding):
        yield


class _FoldedLinear(torch.autograd.Function):
    """A linear layer that tells what makes its weight's gradient, and makes none."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, weight: Tensor, bias: Tensor | None, told: Watcher) -> Tensor:
        ctx.save_for_backward(read, weight)
        ctx.told = told
        return nn.functional.linear(read, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (gradient,), (read, weight) = gradients, ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            ctx.told(read, gradient)
        below = gradient @ weight if ctx.needs_input_grad[0] else None
        bias = gradient.reshape(-1, gradient.shape[-1]).sum(0) if ctx.needs_input_grad[2] else None
        return below, None, bias, None


@contextmanager
def watching_embedding(embedding: nn.Module, told: Watcher) -> Iterator[None]:
    """While open, `told` gets the token ids of each pass and the gradient of what the embedding made of them. Its
    weight needs none."""

    def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG001
        if not torch.is_grad_enabled():
            return output
        made = output.detach().requires_grad_(True)
        made.register_hook(lambda gradient: told(args[0], gradient))
        return made.clone()  # which the class may change in place

    handle = embedding.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching_head(head: nn.Module, told: Watcher) -> Iterator[None]:
    """While open, `told` gets the hidden states that the head reads in each pass and the gradient of its logits. Its
    weight needs none."""

    def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        if output.requires_grad:
            read = args[0].detach()
            output.register_hook(lambda gradient: told(read, gradient))

    handle = head.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def embedded(embedding: Any, rows: Tensor, ids: Tensor) -> Tensor:
    """What the embedding makes of ids with other rows [n, hidden] as its weight: scaled as the class does it."""
    held, padding = embedding.weight.data, embedding.padding_idx
    try:
        # Of some rows alone, the padding token may be none; it only matters to the weight's own gradient.
        embedding.weight.data, embedding.padding_idx = rows, None
        with torch.no_grad():
            made: Tensor = embedding.forward(ids)
    finally:
        embedding.weight.data, embedding.padding_idx = held, padding
    return made
