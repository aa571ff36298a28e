"""What embedding and head read and make in a pass with gradients, so that their own gradients need not be made: each
is as large as the weight itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Watcher = Callable[[Tensor, Tensor], None]


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
    held = embedding.weight.data
    try:
        embedding.weight.data = rows
        with torch.no_grad():
            made: Tensor = embedding.forward(ids)
    finally:
        embedding.weight.data = held
    return made
