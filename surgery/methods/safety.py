"""Methods made for safety. The base is the aligned model from which the adapted one was made; `unaligned` is its
pretrained model, or one that was tuned on harmful data.

All read a direction from base - unaligned, and resta adds it: it subtracts the unaligned model by definition. With base
and unaligned swapped, the direction is that of losing refusals. Nothing in the weights tells which is which, so that
nothing here can refuse it; only answers to prompts tell (`vlsurgery evaluate`).
"""

from typing import TYPE_CHECKING

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Settings, Stream
from vlsurgery.surgery.methods.sparse import prune_at_random
from vlsurgery.surgery.methods.weighted import add_deltas

if TYPE_CHECKING:
    from vlsurgery.surgery.methods.projection import Projection


def unsafe_projection(stream: Stream, settings: Settings) -> "Projection | None":
    """The projection of a matrix's delta, where its cosine with the delta is `tau` or less; None where the cosine is
    larger or undefined, and for tensors that are not matrices."""
    from vlsurgery.surgery.methods.projection import Projection

    if len(stream.shape) != 2 or min(stream.shape) < 2 or not {"adapted", "unaligned"} <= settings.coefficients.keys():
        return None
    projection = Projection(stream)
    cosine = projection.cosine
    return projection if cosine is not None and cosine <= settings["tau"] else None


def safelora(chunk: Chunk, settings: Settings, state: "Projection | None") -> np.ndarray:  # noqa: ARG001
    """Safe LoRA: a delta whose cosine with its projection is tau or less is replaced by the projection (Hsu et al.
    2024, arXiv 2405.16833, eq. 3)."""
    return chunk.models["adapted"] if state is None else chunk.origin + state.of(chunk)


def safemerge(chunk: Chunk, settings: Settings, state: "Projection | None") -> np.ndarray:
    """SafeMERGE: a delta that fails Safe LoRA's test is averaged with a safe model's: base + (1 - share)
    (adapted - base) + share (safe - base) (Djuhera et al. 2025, arXiv 2503.17239)."""
    if state is None:
        return chunk.models["adapted"]
    return add_deltas(chunk, chunk.stored_models["adapted"], {"safe": settings["share"]})


def resta(chunk: Chunk, settings: Settings, state: None) -> np.ndarray:  # noqa: ARG001
    """RESTA: theta = base + prune(adapted - base) + gamma (base - unaligned), with DARE's random pruning to `density`,
    none by default (Bhardwaj et al. 2024, arXiv 2402.11746). With an `unaligned` that refuses more than the base does,
    this takes refusals out."""
    adapted = chunk.models["adapted"]
    if settings["density"] < 1:
        gain = prune_at_random(chunk, "adapted", settings["density"], settings["rescale"])
        adapted = chunk.origin + adapted.dtype.type(gain) * chunk.buffer("adapted")
    return adapted + adapted.dtype.type(settings["gamma"]) * (chunk.origin - chunk.models["unaligned"])
