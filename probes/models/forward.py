"""Forward passes that keep less, or compute less, at equal results.

Gradient checkpointing computes a block's activations again instead of keeping them. What the vision tower makes of a
picture stays the same while the text stack moves, so it is kept.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint

from vlsurgery.probes.models.chat import ChatModel

MAX_ACTIVATION_BYTES = 128 * 2**20  # of a batch, more are computed again
MAX_PICTURE_BYTES = 256 * 2**20  # of what vision towers made that is kept
# Kept of a token for a backward pass per block, in hidden sizes: attention, an MLP 3 to 4 times as wide.
ACTIVATIONS_PER_TOKEN = 32

# Tokens of a prompt up to which the plain products of attention have the faster backward pass on a CPU.
SHORT = 128

Forward = Callable[..., Any]


@contextmanager
def calling(owner: object, name: str, make: Callable[[Forward], Forward]) -> Iterator[None]:
    """While open, a method of one object is what `make` makes of it."""
    held = vars(owner)
    own, before = name in held, getattr(owner, name)
    setattr(owner, name, make(before))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def checkpointing(chat: ChatModel, inputs: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, blocks keep no activations for the backward pass of this batch, where those would be many.

    In evaluation mode too. The backward pass must run while it is open.
    """
    config: Any = chat.model.config
    width = config.get_text_config().hidden_size * next(chat.model.parameters()).element_size()
    needed = inputs["input_ids"].numel() * width * ACTIVATIONS_PER_TOKEN * len(chat.blocks)
    with ExitStack() as stack:
        if needed > MAX_ACTIVATION_BYTES:
            for block in chat.blocks:
                stack.enter_context(calling(block, "forward", _checkpointed))
        yield


@contextmanager
def short_attention(chat: ChatModel, inputs: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, attention over short prompts on a CPU is computed by plain products, where the class lets torch
    choose: going back through them takes less than half the time. Numbers differ by rounding."""
    with ExitStack() as stack:
        if chat.device.type == "cpu" and inputs["input_ids"].shape[1] <= SHORT:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _checkpointed(forward: Forward) -> Forward:
    def again(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return again


@contextmanager
def keeping_pictures(chat: ChatModel, nbytes: int = MAX_PICTURE_BYTES) -> Iterator[None]:
    """While open, what the model makes of a batch's pictures is computed once, as far as `nbytes` go.

    Only for passes between which no weight of tower or projector changes.
    """
    owner = _picture_reader(chat)
    with ExitStack() as stack:
        if owner is not None:
            embedding: Any = chat.model.get_input_embeddings()  # type: ignore[operator]
            stack.enter_context(calling(owner, "get_image_features", _Kept(nbytes, embedding).of))
        yield


def _picture_reader(chat: ChatModel) -> nn.Module | None:
    """The innermost module around the decoder blocks that has `get_image_features`; None where none has."""
    holders = [module for module in chat.model.modules() if hasattr(module, "get_image_features")]
    around = [module for module in holders if any(chat.blocks[0] is part for part in module.modules())]
    return around[-1] if around else None


def _attention_kernels() -> list[SDPBackend]:
    """Those that torch may choose from now."""
    allowed = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled(),
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled(),
        SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled(),
    }
    return [kernel for kernel, is_allowed in allowed.items() if is_allowed]


class _Kept:
    """Outputs of a function by its inputs, to the bit the same whichever pass asks first: attention is computed as it
    was to be when this was made, whatever `short_attention` says meanwhile.

    nbytes: of outputs and inputs, at most; later ones are not kept. moving: a module whose weights change; what was
    made by it is not kept.
    """

    def __init__(self, nbytes: int, moving: nn.Module) -> None:
        self._room = nbytes
        self._moving = moving
        self._kernels = _attention_kernels()
        self._calls: list[tuple[tuple[list[Any], object], Any, list[int]]] = []

    def of(self, forward: Forward) -> Forward:
        def once(*args: object, **kwargs: object) -> object:
            given = tree_flatten((args, kwargs))
            for known, output, versions in self._calls:
                if _same(known, given) and versions == _versions(output):
                    return output
            with sdpa_kernel(self._kernels):
                output, moved = self._watched(forward, *args, **kwargs)
            if not moved:
                self._keep(given, output)
            return output

        return once

    def _watched(self, forward: Forward, *args: object, **kwargs: object) -> tuple[object, bool]:
        """The output, and whether the moving module ran for it."""
        ran: list[bool] = []
        handle = self._moving.register_forward_pre_hook(lambda *_: ran.append(True))
        try:
            return _without_layers(forward(*args, **kwargs)), bool(ran)
        finally:
            handle.remove()

    def _keep(self, given: tuple[list[Any], object], output: object) -> None:
        tensors = [leaf for leaf in (*given[0], *tree_flatten(output)[0]) if isinstance(leaf, Tensor)]
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self._room and not any(tensor.requires_grad for tensor in tensors):
            self._room -= size
            self._calls.append((given, output, _versions(output)))


def _same(one: tuple[list[Any], object], other: tuple[list[Any], object]) -> bool:
    """Whether two calls have the same inputs."""
    if one[1] != other[1]:
        return False
    return all(_equal(mine, yours) for mine, yours in zip(one[0], other[0], strict=True))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return one is other or (alike and torch.equal(one, other))
    return type(one) is type(other) and bool(one == other)


def _versions(output: object) -> list[int]:
    """How often each tensor was changed in place."""
    return [leaf._version for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]


def _without_layers(output: Any) -> Any:
    """A vision tower's output without the states of its single layers, which the text stack does not read."""
    for name in ("hidden_states", "attentions"):
        if getattr(output, name, None) is not None:
            output[name] = None
    return output
