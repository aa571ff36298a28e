"""Taps: where a running model's hidden states are read and replaced, in the order in which that was asked for.

All edits of one place share one hook, which stands before all other hooks of its module: what records states sees them
edited, and of two edits the later one gets what the earlier one made. No tensor is changed in place.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.block_parts import hidden_of, with_hidden
from vlsurgery.surgery.errors import SurgeryError

Edit = Callable[[Tensor], Tensor]  # [..., hidden] -> the same shape; of heads [..., heads, hidden]
Kind = Literal["input", "output", "heads"]


class Tap:
    """The edits at one place of one module."""

    def __init__(self, module: nn.Module, kind: Kind) -> None:
        self.edits: list[Edit] = []
        if kind == "input":
            self._handle = module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
        else:
            self._handle = module.register_forward_hook(self._after, prepend=True)

    def remove(self) -> None:
        self._handle.remove()

    def edited(self, hidden: Tensor) -> Tensor:
        for edit in self.edits:
            hidden = edit(hidden)
        return hidden

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (self._replaced(module, args[0]), *args[1:]), kwargs
        name = next(iter(name for name in ("hidden_states", "hidden") if name in kwargs), None)
        if name is None:
            raise SurgeryError(f"{type(module).__name__} gets no hidden states, so its input can't be changed.")
        return args, {**kwargs, name: self._replaced(module, kwargs[name])}

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG002  heads read it
        if isinstance(output, Tensor):
            return self._replaced(module, output)
        return type(output)((self._replaced(module, output[0]), *output[1:]))

    def _replaced(self, module: nn.Module, value: Tensor) -> Tensor:
        return with_hidden(module, value, self.edited(hidden_of(module, value)))


class HeadTap(Tap):
    """The edits of single heads: of what each adds to the residual stream through the matrix behind them."""

    def __init__(self, module: nn.Linear, heads: int) -> None:
        self._heads = heads
        super().__init__(module, "heads")

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        weight: Any = module.weight
        before = _contributions(args[0], weight, self._heads)
        return (output + (self.edited(before) - before).sum(-2)).to(output.dtype)


def _contributions(states: Tensor, weight: Tensor, heads: int) -> Tensor:
    """[..., heads, hidden] float32: what each head adds, of states [..., heads x width]."""
    apart = states.unflatten(-1, (heads, -1)).float()
    return torch.einsum("...hw,dhw->...hd", apart, weight.unflatten(-1, (heads, -1)).float())


_TAPS: Final[WeakKeyDictionary[nn.Module, dict[Kind, Tap]]] = WeakKeyDictionary()


@contextmanager
def tapped(module: nn.Module, kind: Kind, edit: Edit, heads: int = 0) -> Iterator[None]:
    """While open, an edit applies at one place of a module, behind the edits that are there.

    kind: `input`, `output` or, at the matrix behind a number of heads, `heads`.
    """
    taps = _TAPS.setdefault(module, {})
    if kind not in taps:
        taps[kind] = HeadTap(module, heads) if kind == "heads" and isinstance(module, nn.Linear) else Tap(module, kind)
    tap = taps[kind]
    tap.edits.append(edit)
    try:
        yield
    finally:
        tap.edits.remove(edit)
        if not tap.edits:
            tap.remove()
            del taps[kind]


def at_heads(edit: Edit, heads: Sequence[int]) -> Edit:
    """An edit of some heads, as one of all."""

    def some(whole: Tensor) -> Tensor:
        at = torch.tensor(heads, device=whole.device)
        return whole.index_copy(-2, at, edit(whole.index_select(-2, at)))

    return some
