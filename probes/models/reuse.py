"""Forward passes that begin at a decoder block, where nothing below it changed since the last pass."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.probes.models.forward import Forward, calling
from vlsurgery.probes.models.head import headless


class BlockInputs:
    """What one decoder block reads of each batch: the blocks below need not run to go on from there.

    passes: the arguments of the model's forward, one mapping a batch. works: whether passes that begin at a block give
    what whole passes give, bit for bit. It was tried on a batch of every kind (with a picture, without), because a
    class may hand things past its blocks.
    """

    def __init__(self, chat: ChatModel, passes: Sequence[Mapping[str, Tensor]]) -> None:
        self._chat = chat
        self._passes = passes
        self._states: dict[Tensor, Tensor] = {}
        self._layer = 0
        kinds = {tuple(sorted(inputs)): inputs for inputs in passes}
        self.works = all(self._tried(inputs) for inputs in kinds.values())

    def advance(self, layer: int) -> None:
        """Go up to a block, through those between as they are now. Raises ValueError for one below."""
        if layer < self._layer:
            raise ValueError(f"states stand at block {self._layer}, above {layer}")
        if layer > self._layer or not self._states:
            self._states = self._read(self._passes, layer)
            self._layer = layer

    @contextmanager
    def beginning_there(self) -> Iterator[None]:
        """While open, the model's passes on these batches begin at the block; those on others are whole."""
        with calling(self._chat.model, "forward", self._begun):
            yield

    def _begun(self, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            state = self._states.get(kwargs["input_ids"])
            if state is None:
                return forward(*args, **kwargs)
            blocks = self._chat.blocks
            with _passing(blocks[: self._layer]), _given(blocks[self._layer], state):
                return forward(*args, **kwargs)

        return run

    def _read(self, passes: Sequence[Mapping[str, Tensor]], layer: int) -> dict[Tensor, Tensor]:
        """input_ids -> what the block reads; without batches in which it does not run."""
        block, found = self._chat.blocks[layer], {}
        for inputs in passes:
            kept: list[Tensor] = []
            handle = block.register_forward_pre_hook(_keeping(kept), with_kwargs=True)
            above = _passing(self._chat.blocks[layer:])
            try:
                with torch.no_grad(), headless(self._chat), above, self.beginning_there():
                    self._chat.model(**inputs, use_cache=False)
            finally:
                handle.remove()
            if len(kept) == 1:
                found[inputs["input_ids"]] = kept[0]
        return found

    def _tried(self, inputs: Mapping[str, Tensor]) -> bool:
        """Whether passes that begin in the middle and at the last block end as whole ones do."""
        outputs = self._outputs(inputs)
        if len(outputs) != len(self._chat.blocks) or not all(isinstance(output, Tensor) for output in outputs):
            return False
        for layer in {len(self._chat.blocks) // 2, len(self._chat.blocks) - 1}:
            self._states, self._layer = self._read([inputs], layer), layer
            with self.beginning_there():
                begun = self._outputs(inputs)[-1]
            self._states, self._layer = {}, 0
            if not torch.equal(outputs[-1], begun):
                return False
        return True

    def _outputs(self, inputs: Mapping[str, Tensor]) -> list[Any]:
        """What each block gives, in the order in which they run."""
        made: list[Any] = []
        with torch.no_grad(), headless(self._chat), ExitStack() as stack:
            for block in self._chat.blocks:
                handle = block.register_forward_hook(lambda module, args, output: made.append(output))  # noqa: ARG005
                stack.callback(handle.remove)
            self._chat.model(**inputs, use_cache=False)
        return made


@contextmanager
def _passing(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While open, these blocks hand on what they are given."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(calling(block, "forward", lambda forward: _hidden))  # noqa: ARG005
        yield


@contextmanager
def _given(block: nn.Module, state: Tensor) -> Iterator[None]:
    """While open, the block reads `state`."""

    def instead(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:  # noqa: ARG001
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    handle = block.register_forward_pre_hook(instead, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _keeping(kept: list[Tensor]) -> Any:
    """A hook that appends what a block reads."""

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
        kept.append(_hidden(*args, **kwargs).clone())

    return keep


def _hidden(*args: Tensor, **kwargs: Tensor) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
