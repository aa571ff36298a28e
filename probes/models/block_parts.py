"""The parts of a decoder block in a running model: what mixes tokens, what follows it, and the matrix behind heads."""

from typing import Any, Final, Literal, get_args

from torch import Tensor, nn

from vlsurgery.surgery.architecture.naming import ATTENTION, CONTAINERS, SHARED_EXPERTS

Part = Literal["input", "residual", "attention", "mlp"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

# Children of blocks beside those that CONTAINERS names: what stands in attention's place, and further MLPs.
_MIXERS: Final = frozenset({"conv", "mamba", "mixer", "temporal_block"})
_FEED_FORWARD: Final = frozenset({"fc2", "shared_mlp", "mlp_block"}) | SHARED_EXPERTS
_ATTENTION_KINDS: Final = frozenset({"attn", "cross_attn", "linear_attn"})


def part_modules(block: nn.Module, part: Part) -> list[nn.Module]:
    """The modules whose input (of `input`) or output is a part of the block; several where two work side by side."""
    if part in ("input", "residual"):
        return [block]
    return [child for name, child in block.named_children() if _kind(name) == part]


def _kind(name: str) -> Part | None:
    kind = CONTAINERS.get(name)
    if kind in _ATTENTION_KINDS or name in _MIXERS:
        return "attention"
    return "mlp" if kind == "mlp" or name in _FEED_FORWARD else None


def head_matrix(block: nn.Module) -> nn.Linear | None:
    """The matrix that adds all heads' outputs into the residual stream; None where a plain one is not found."""
    found = [
        child
        for attention in part_modules(block, "attention")
        for name, child in attention.named_children()
        if ATTENTION.get(name) == "o"
    ]
    return found[0] if len(found) == 1 and isinstance(found[0], nn.Linear) else None


def head_count(model: nn.Module) -> int | None:
    """How many heads the config says that attention has."""
    config: Any = model.config
    count = getattr(config.get_text_config(), "num_attention_heads", None)
    return count if isinstance(count, int) else None


def hidden_of(block: nn.Module, value: Tensor) -> Tensor:
    """[..., hidden] the stream that a block computes on, of all that it passes on (Gemma 3n has several)."""
    return value[_active(block)] if value.ndim == 4 else value


def with_hidden(block: nn.Module, value: Tensor, hidden: Tensor) -> Tensor:
    """What `hidden_of` was taken from with another stream in its place; the value itself is not changed."""
    if value.ndim != 4:
        return hidden
    changed = value.clone()
    changed[_active(block)] = hidden
    return changed


def _active(block: nn.Module) -> int:
    config: Any = block.config
    return int(config.altup_active_idx)
