"""The output head, applied to the few tokens whose logits are read.

Hooks on the head itself pick those tokens, so that whatever a class does with logits afterwards (scaling, soft caps)
stays as it is. Logits of a whole batch, [tokens, vocabulary], are never made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.surgery.errors import CheckpointError

# Gives the head's parameters by name, some rows of the vocabulary at a time, in order.
HeadRows = Callable[[], Iterator[Mapping[str, Tensor]]]

# Of one batch's float32 logits, where several prompts share it: a divergence and its backward pass take up to seven
# times as much at once.
MAX_LOGIT_BYTES = {"cpu": 48 * 2**20, "cuda": 512 * 2**20}


def head_of(chat: ChatModel) -> nn.Module:
    """The module that makes logits of hidden states. Raises CheckpointError where the class names none."""
    model: Any = chat.model
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise CheckpointError(
            f"{chat.name}: {type(model).__name__} names no output head, so its logits can't be read. "
            "Use a checkpoint of a class that generates text."
        )
    return head


def reading_contiguously(model: Any) -> None:
    """Have the head copy what it reads where that is a slice of a batch, as when a prompt's last tokens are picked.

    torch copies the head's weight for every row of such a slice where neither takes gradients: 11 GB and two minutes
    for 24 prompts of a vocabulary of 152,000.
    """
    head = model.get_output_embeddings()
    if isinstance(head, nn.Module):
        head.register_forward_pre_hook(lambda module, args: tuple(each.contiguous() for each in args))  # noqa: ARG005


def vocabulary_size(chat: ChatModel) -> int:
    """How many tokens the head has a logit for."""
    head: Any = head_of(chat)
    return int(head.weight.shape[0])


def answers_at_once(chat: ChatModel, answers: Sequence[Tensor], most: int) -> int:
    """Prompts that share a batch, `most` at most, so that the logits of their answers keep to MAX_LOGIT_BYTES."""
    longest = max((len(answer) for answer in answers), default=1)
    room = MAX_LOGIT_BYTES["cpu" if chat.device.type == "cpu" else "cuda"]
    return max(1, min(most, room // (4 * vocabulary_size(chat) * longest)))


def head_copy(chat: ChatModel, device: str | None = None) -> HeadRows:
    """The head's parameters as they are now, kept on `device`, by default where they are."""
    kept = {name: value.detach().to(device, copy=True) for name, value in head_of(chat).named_parameters()}
    return lambda: iter([kept])


def picked_logits(chat: ChatModel, inputs: Mapping[str, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """[K, vocabulary] float32 logits at the tokens (rows, columns) of a batch."""
    return stored_logits(chat, inputs, rows, columns).float()


def stored_logits(chat: ChatModel, inputs: Mapping[str, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """[K, vocabulary] logits as `picked_logits`, in the dtype that the model makes them in."""
    with _picking(head_of(chat), rows, columns):
        return _logits(chat, inputs)


def logits_beside(
    chat: ChatModel, inputs: Mapping[str, Tensor], rows: Tensor, columns: Tensor, states: Tensor, weights: HeadRows
) -> tuple[Tensor, Tensor]:
    """[K, vocabulary] logits as `stored_logits`, and those of `states` [N, hidden] under other head weights.

    Both go through what the class does behind the head, in one forward pass. The second take no gradients.
    """
    head = head_of(chat)
    made: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            made.append(_whole_logits(module, states[None].to(args[0].device), weights))

    def after(module: nn.Module, args: object, output: Tensor) -> Tensor:  # noqa: ARG001
        return torch.cat([output, made.pop().to(output.dtype)], dim=1)

    with _picking(head, rows, columns):
        handles = [head.register_forward_pre_hook(before), head.register_forward_hook(after)]
        try:
            both = _logits(chat, inputs)
        finally:
            for handle in handles:
                handle.remove()
    ours, theirs = both.split([len(rows), len(states)])
    return ours, theirs.detach()


def _whole_logits(head: nn.Module, states: Tensor, weights: HeadRows) -> Tensor:
    """[1, K, vocabulary] what the head makes of hidden states [1, K, hidden] with other weights.

    Logits are written into one tensor: kept apart, those of some rows would hold on to the memory around them.
    """
    size = int(head.weight.shape[0])  # type: ignore[index]
    found: Tensor | None = None
    start = 0
    for some in weights():
        with _replaced(head, some):
            part: Tensor = head.forward(states)
        if found is None:
            found = part.new_empty(*part.shape[:-1], size)
        found[..., start : start + part.shape[-1]] = part
        start += part.shape[-1]
    assert found is not None  # A head has rows.
    return found


def head_states(chat: ChatModel, inputs: Mapping[str, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """[K, hidden] what the head reads at the tokens (rows, columns), in the model's dtype and without gradients."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001
        kept.append(args[0][0].detach())
        return (args[0][:, :0], *args[1:])

    head = head_of(chat)
    with torch.no_grad(), _picking(head, rows, columns):
        handle = head.register_forward_pre_hook(keep)
        try:
            chat.model(**inputs, use_cache=False)
        finally:
            handle.remove()
    (states,) = kept
    return states


@contextmanager
def headless(chat: ChatModel) -> Iterator[None]:
    """While open, forward passes make logits of no token."""
    none = torch.zeros(0, dtype=torch.long)
    with _picking(head_of(chat), none, none):
        yield


@contextmanager
def _picking(head: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """While open, the head reads [1, K, hidden]: the tokens (rows, columns) of what it is given."""

    def pick(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001
        hidden = args[0]
        return (hidden[rows.to(hidden.device), columns.to(hidden.device)][None], *args[1:])

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _replaced(head: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, the head has these parameters; the embedding too, where the two are tied."""
    parameters = dict(head.named_parameters())
    before = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name].to(parameter.device, parameter.dtype)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = before[name]


def _logits(chat: ChatModel, inputs: Mapping[str, Tensor]) -> Tensor:
    logits: Tensor = chat.model(**inputs, use_cache=False).logits
    return logits[0]
