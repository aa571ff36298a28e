"""Methods made for safety. They know an aligned model, the base that the adapted one grew from, and its unaligned
counterpart: the pretrained model, or one that was tuned on harmful data."""

from typing import TYPE_CHECKING, Final

from surgery.methods.method import Block, Settings, Stream
from surgery.methods.projection import ADAPTED, UNALIGNED, Projection
from surgery.methods.sparse import thin_at_random

if TYPE_CHECKING:
    from torch import Tensor

SAFE: Final = "safe"


def unsafe_part(stream: Stream, settings: Settings) -> Projection | None:
    """The projection of a matrix's delta, where the delta lies outside of what alignment changed by more than `tau`
    allows; None where it does not, for what is no matrix, and where either is 0."""
    if len(stream.shape) != 2 or min(stream.shape) < 2 or not {ADAPTED, UNALIGNED} <= settings.weights.keys():
        return None
    projection = Projection(stream)
    cosine = projection.cosine
    return projection if cosine is not None and cosine <= settings["tau"] else None


def safelora(block: Block, settings: Settings, facts: Projection | None) -> "Tensor":  # noqa: ARG001
    """Safe LoRA: a delta whose cosine with its projection is tau or less gives way to the projection (Hsu et al. 2024,
    arXiv 2405.16833, eq. 3)."""
    return block.models[ADAPTED] if facts is None else block.origin + facts.of(block)


def safemerge(block: Block, settings: Settings, facts: Projection | None) -> "Tensor":
    """SafeMERGE: by the same test, a delta gives way to a mean of itself and a safe model's: base + (1 - share)
    (adapted - base) + share (safe - base) (Djuhera et al. 2025, arXiv 2503.17239)."""
    adapted = block.models[ADAPTED]
    return adapted if facts is None else adapted.lerp(block.models[SAFE], settings["share"])


def resta(block: Block, settings: Settings, facts: None) -> "Tensor":  # noqa: ARG001
    """RESTA: theta = base + thin(adapted - base) + gamma (base - unaligned), with DARE's thinning of share `density`,
    none by default (Bhardwaj et al. 2024, arXiv 2402.11746)."""
    moved = block.models[ADAPTED]
    density, rescale = settings["density"], settings["rescale"]
    if density < 1:
        left, gain = thin_at_random(block, ADAPTED, moved - block.origin, density, rescale)
        moved = block.origin.add(left, alpha=gain)
    return moved.add(block.origin - block.models[UNALIGNED], alpha=settings["gamma"])
