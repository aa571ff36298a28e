"""The gradient of every prompt's number by every coefficient, exact: what a policy needs to know of a model.

From z(c0) + J (c - c0) any price, limit or resample of the prompts is solved without running the model again.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlsurgery.probes.in_memory_merge import BlockCoefficients, InMemoryMerge
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.forward import checkpointing, short_attention
from vlsurgery.probes.prompt_slopes import PromptSlopes
from vlsurgery.probes.tensor_file import tensor_file
from vlsurgery.probes.weight_parts import WeightParts
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.atomic_file import replacing
from vlsurgery.surgery.runtime.progress import Progress, no_progress

SCHEMA: Final = "vlsurgery/gradients/1"
# Relative to the largest: further apart, prompts are run one by one. Products of bfloat16 keep 8 bits.
TOLERANCE: Final = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class Readout(Protocol):
    """A batch of prompts that gives one number a prompt, as `RefusalChoices` does.

    rows: [B] the row in the batch of each number. read: [K] the row of each token that the head reads. owner: [B] its
    prompt, as a position in the sequence that was batched.
    """

    @property
    def inputs(self) -> dict[str, Tensor]: ...
    @property
    def rows(self) -> Tensor: ...
    @property
    def read(self) -> Tensor: ...
    @property
    def owner(self) -> Tensor: ...
    def log_odds(self, chat: ChatModel, /) -> Tensor: ...


@dataclass(frozen=True)
class PromptGradients:
    """Each prompt's number and its gradient by coefficient, at one point.

    prompts: ids. at: [blocks, sources] float32 coefficients of the point. z: [prompts] float64, in nats. jacobian:
    [prompts, blocks, sources] float32, nats per unit of coefficient. made_for: the caller's mark of what they hold for.
    """

    prompts: tuple[str, ...]
    blocks: tuple[str, ...]
    sources: tuple[str, ...]
    at: Tensor
    z: Tensor
    jacobian: Tensor
    made_for: str = ""

    def save(self, path: Path) -> None:
        """Write a safetensors file; the same gradients give the same bytes."""
        tensors = {"J": self.jacobian, "at": self.at, "z": self.z}
        names = {"blocks": self.blocks, "prompts": self.prompts, "sources": self.sources}
        metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in names.items()}
        with replacing(path) as fresh:
            fresh.write_bytes(tensor_file(tensors, {**metadata, "schema": SCHEMA, "made_for": self.made_for}))

    @classmethod
    def load(cls, path: Path) -> "PromptGradients":
        """Raises SurgeryError where the file holds no gradients."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("schema") != SCHEMA:
                    raise SurgeryError(
                        f"{path}: holds no gradients of prompts (expected schema {SCHEMA}, found "
                        f"{metadata.get('schema', 'none')}). Remove it; they are computed again."
                    )
                prompts, blocks, sources = (
                    tuple(json.loads(metadata[key])) for key in ("prompts", "blocks", "sources")
                )
                at, z, jacobian = (file.get_tensor(name) for name in ("at", "z", "J"))
                found = cls(prompts, blocks, sources, at, z, jacobian, metadata.get("made_for", ""))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise SurgeryError(
                f"{path}: gradients can't be read ({error}). Remove it; they are computed again."
            ) from error
        shape = (len(found.prompts), len(found.blocks), len(found.sources))
        if (
            found.jacobian.shape != shape
            or found.at.shape != shape[1:]
            or found.z.shape != shape[:1]
            or not all(tensor.isfinite().all() for tensor in (found.jacobian, found.at, found.z))
        ):
            raise SurgeryError(
                f"{path}: gradients of {shape} prompts, blocks and sources expected, found "
                f"{tuple(found.jacobian.shape)} or numbers that are not finite. Remove it; they are computed again."
            )
        return found


def prompt_gradients(
    live: InMemoryMerge,
    coefficients: BlockCoefficients,
    batches: Sequence[Readout],
    prompts: Sequence[str],
    progress: Progress = no_progress,
    made_for: str = "",
) -> PromptGradients:
    """Numbers and gradients of all prompts at `coefficients`, in one forward and backward pass a batch.

    prompts: the ids of the prompts that were batched. The live model is restored. See `Gradients` for several points.
    """
    return Gradients(live).at(coefficients, batches, prompts, progress, made_for)


class Gradients:
    """Takes gradients of a live merge's prompts, at one point after the other.

    The first batch of every kind (with a picture, without) is held against the ordinary gradient of a random
    combination of its prompts; where a class mixes prompts so that they can't be told apart, its prompts are run one by
    one, which is exact for every class.
    """

    def __init__(self, live: InMemoryMerge, parts: WeightParts | None = None) -> None:
        """parts: what `at_parts` tells slopes of; by default the blocks."""
        self._live = live
        self._parts = parts or WeightParts.blocks(live)
        self._readers: dict[tuple[str, ...], PromptSlopes | None] = {}  # of a kind of batch; None: one by one

    def at(
        self,
        coefficients: BlockCoefficients,
        batches: Sequence[Readout],
        prompts: Sequence[str],
        progress: Progress = no_progress,
        made_for: str = "",
    ) -> PromptGradients:
        """As `prompt_gradients`."""
        return self.at_parts(coefficients, batches, prompts, progress, made_for)[0]

    def at_parts(
        self,
        coefficients: BlockCoefficients,
        batches: Sequence[Readout],
        prompts: Sequence[str],
        progress: Progress = no_progress,
        made_for: str = "",
    ) -> tuple[PromptGradients, Tensor | None]:
        """As `at`, and [prompts, parts, sources] float64 slopes of every part, from the same passes.

        None in their place where some prompts had to be run one by one: then only blocks can be told.
        """
        live, point = self._live, self._live.tensor(coefficients)
        z = torch.zeros(len(prompts), dtype=torch.float64)
        jacobian = torch.zeros(len(prompts), len(live.blocks), len(live.sources))
        parts: Tensor | None = torch.zeros(len(prompts), len(self._parts.parts), len(live.sources), dtype=torch.float64)
        with live.at(coefficients):
            for batch in progress(batches, "gradients of the prompts"):
                owner = batch.owner.cpu()
                numbers, slopes, fine = self._of(batch, point)
                z[owner], jacobian[owner] = numbers, slopes.float()
                if parts is not None and fine is not None:
                    parts[owner] = fine
                else:
                    parts = None
        made = PromptGradients(tuple(prompts), live.blocks, live.sources, point, z, jacobian, made_for)
        return made, parts

    def _of(self, batch: Readout, point: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """[B] numbers and their slopes, [B, blocks, sources] and [B, parts, sources]; None for these one by one."""
        kind = tuple(sorted(batch.inputs))
        if kind not in self._readers:
            return self._first(kind, batch, point)
        reader = self._readers[kind]
        return self._together(reader, batch) if reader else (*_one_by_one(self._live, point, batch), None)

    def _first(self, kind: tuple[str, ...], batch: Readout, point: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `_of`, of the first batch of a kind: whether its prompts can be told apart is tried on it."""
        reader = PromptSlopes(self._live, batch.inputs, self._parts)
        try:
            found = self._together(reader, batch)
            apart = _agrees(self._live, point, batch, found[1])
        except (ValueError, NotImplementedError):
            apart = False
        self._readers[kind] = reader if apart else None
        return found if apart else (*_one_by_one(self._live, point, batch), None)

    def _together(self, reader: PromptSlopes, batch: Readout) -> tuple[Tensor, Tensor, Tensor]:
        """[B] numbers and their slopes, [B, blocks, sources] and [B, parts, sources]."""
        live = self._live
        with ExitStack() as stack:
            found = stack.enter_context(reader.watching(len(batch.inputs["input_ids"]), batch.read))
            stack.enter_context(checkpointing(live.chat, batch.inputs))
            stack.enter_context(short_attention(live.chat, batch.inputs))
            numbers = batch.log_odds(live.chat)
            numbers.sum().backward()
        fine = found[batch.rows.cpu()]
        return numbers.detach().double().cpu(), self._parts.of_blocks(fine, len(live.blocks)), fine


def _agrees(live: InMemoryMerge, at: Tensor, batch: Readout, slopes: Tensor) -> bool:
    """Whether a combination of the prompts' slopes is the gradient of the same combination of their numbers."""
    weights = torch.randn(len(slopes), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, expected = _pulled(live, at, batch, weights)
    found = torch.einsum("p,pbs->bs", weights, slopes)
    error = torch.linalg.vector_norm(found - expected)
    dtype = next(live.chat.model.parameters()).dtype
    return bool(error <= TOLERANCE[dtype] * torch.linalg.vector_norm(expected))


def _one_by_one(live: InMemoryMerge, at: Tensor, batch: Readout) -> tuple[Tensor, Tensor]:
    """[B] numbers and their slopes, with a backward pass for every prompt."""
    count = len(batch.owner)
    found = [_pulled(live, at, batch, row) for row in torch.eye(count, dtype=torch.float64)]
    return found[0][0], torch.stack([slope for _, slope in found])


def _pulled(live: InMemoryMerge, at: Tensor, batch: Readout, weights: Tensor) -> tuple[Tensor, Tensor]:
    """[B] numbers, and the gradient of their weighted sum by coefficient through every parameter's own gradient."""
    with live.differentiable(), checkpointing(live.chat, batch.inputs):
        numbers = batch.log_odds(live.chat)
        (numbers * weights.to(numbers)).sum().backward()
        slope = live.gradient()
    live.move(at)
    return numbers.detach().double().cpu(), slope
