"""Methods made for safety. They know an aligned model, the base that the adapted one grew from, and its unaligned
counterpart: the pretrained model, or one that was tuned on harmful data."""

from typing import Final

import numpy as np

from vlsurgery.surgery.methods.method import Block, Settings, Stream
from vlsurgery.surgery.methods.projection import ADAPTED, UNALIGNED, Projection
from vlsurgery.surgery.methods.sparse import thin_at_random
from vlsurgery.surgery.methods.weighted import sum_of_moves

SAFE: Final = "safe"


def unsafe_part(stream: Stream, settings: Settings) -> Projection | None:
    """The projection of a matrix's delta, where the delta lies outside of what alignment changed by more than `tau`
    allows; None where it does not, for what is no matrix, and where either is 0."""
    if len(stream.shape) != 2 or min(stream.shape) < 2 or not {ADAPTED, UNALIGNED} <= settings.weights.keys():
        return None
    projection = Projection(stream)
    cosine = projection.cosine
    return projection if cosine is not None and cosine <= settings["tau"] else None


def safelora(block: Block, settings: Settings, facts: Projection | None) -> np.ndarray:  # noqa: ARG001
    """Safe LoRA: a delta whose cosine with its projection is tau or less gives way to the projection (Hsu et al. 2024,
    arXiv 2405.16833, eq. 3)."""
    return block.models[ADAPTED] if facts is None else block.origin + facts.of(block)


def safemerge(block: Block, settings: Settings, facts: Projection | None) -> np.ndarray:
    """SafeMERGE: by the same test, a delta gives way to a mean of itself and a safe model's: base + (1 - share)
    (adapted - base) + share (safe - base) (Djuhera et al. 2025, arXiv 2503.17239)."""
    if facts is None:
        return block.models[ADAPTED]
    return sum_of_moves(block, block.vectors[ADAPTED], {SAFE: settings["share"]})


def resta(block: Block, settings: Settings, facts: None) -> np.ndarray:  # noqa: ARG001
    """RESTA: theta = base + thin(adapted - base) + gamma (base - unaligned), with DARE's thinning of share `density`,
    none by default (Bhardwaj et al. 2024, arXiv 2402.11746)."""
    moved = block.models[ADAPTED]
    density, rescale = settings["density"], settings["rescale"]
    if density < 1:
        gain = thin_at_random(block, ADAPTED, density, rescale)
        moved = block.origin + moved.dtype.type(gain) * block.room(ADAPTED)
    return moved + moved.dtype.type(settings["gamma"]) * (block.origin - block.models[UNALIGNED])
