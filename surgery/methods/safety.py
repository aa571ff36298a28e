"""Methods made for safety. They know an aligned model, the base that the adapted one grew from, and its unaligned
counterpart: the pretrained model, or one that was tuned on harmful data."""

from typing import Final

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Settings, Stream
from vlsurgery.surgery.methods.projection import ADAPTED, UNALIGNED, Projection
from vlsurgery.surgery.methods.sparse import thin_at_random
from vlsurgery.surgery.methods.weighted import sum_of_moves

SAFE: Final = "safe"


def unsafe_part(stream: Stream, settings: Settings) -> Projection | None:
    """The projection of a matrix's delta, where the delta lies outside of what alignment changed by more than `tau`
    allows; None where it does not, for what is no matrix, and where either is 0."""
    if len(stream.shape) != 2 or min(stream.shape) < 2 or not {ADAPTED, UNALIGNED} <= settings.coefficients.keys():
        return None
    projection = Projection(stream)
    cosine = projection.cosine
    return projection if cosine is not None and cosine <= settings["tau"] else None


def safelora(chunk: Chunk, settings: Settings, state: Projection | None) -> np.ndarray:  # noqa: ARG001
    """Safe LoRA: a delta whose cosine with its projection is tau or less gives way to the projection (Hsu et al. 2024,
    arXiv 2405.16833, eq. 3)."""
    return chunk.models[ADAPTED] if state is None else chunk.origin + state.of(chunk)


def safemerge(chunk: Chunk, settings: Settings, state: Projection | None) -> np.ndarray:
    """SafeMERGE: by the same test, a delta gives way to a mean of itself and a safe model's: base + (1 - share)
    (adapted - base) + share (safe - base) (Djuhera et al. 2025, arXiv 2503.17239)."""
    if state is None:
        return chunk.models[ADAPTED]
    return sum_of_moves(chunk, chunk.vectors[ADAPTED], {SAFE: settings["share"]})


def resta(chunk: Chunk, settings: Settings, state: None) -> np.ndarray:  # noqa: ARG001
    """RESTA: theta = base + thin(adapted - base) + gamma (base - unaligned), with DARE's thinning of share `density`,
    none by default (Bhardwaj et al. 2024, arXiv 2402.11746)."""
    moved = chunk.models[ADAPTED]
    density, rescale = settings["density"], settings["rescale"]
    if density < 1:
        gain = thin_at_random(chunk, ADAPTED, density, rescale)
        moved = chunk.origin + moved.dtype.type(gain) * chunk.room(ADAPTED)
    return moved + moved.dtype.type(settings["gamma"]) * (chunk.origin - chunk.models[UNALIGNED])
