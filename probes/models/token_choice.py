"""Which tokens of a batch an intervention changes: by position, and by whether they stand for a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vlsurgery.probes.models.extras import cached_tokens
from vlsurgery.surgery.errors import SurgeryError

TokenKind = Literal["image", "text"]


@dataclass(frozen=True)
class TokenChoice:
    """The tokens to change.

    positions: counted in each prompt without its padding, from 0 at its start or from -1 at its end; while text is
    generated, the end is the newest token. None: all. kind: tokens that stand for a picture, or all others; None: both.
    picture_ids: the ids of tokens that stand for pictures.
    """

    positions: tuple[int, ...] | None
    kind: TokenKind | None
    picture_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in (None, "image", "text"):
            raise SurgeryError(f"tokens must be 'image' or 'text', or left out for all, not {self.kind!r}.")
        if self.kind is not None and not self.picture_ids:
            raise SurgeryError("tokens: the model has no token that stands for a picture. Leave tokens out.")

    @property
    def all(self) -> bool:
        return self.positions is None and self.kind is None

    def of(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """[B, T] bool of the tokens that a forward pass is given; None for all."""
        if self.all:
            return None
        ids = inputs.get("input_ids")
        shown = ids if ids is not None else inputs.get("inputs_embeds")
        if not isinstance(shown, Tensor) or (ids is None and self.kind is not None):
            raise SurgeryError("an intervention on some tokens takes input_ids. Call the model with input_ids.")
        real, number, length = _numbered(shown.shape[:2], shown.device, inputs)
        chosen = real
        if self.positions is not None:
            at = [number == (place if place >= 0 else length + place) for place in self.positions]
            chosen = chosen & torch.stack(at).any(0) if at else torch.zeros_like(chosen)
        if self.kind is not None:  # then it is ids that are shown
            pictured = torch.isin(shown, torch.tensor(self.picture_ids, device=shown.device))
            chosen = chosen & (pictured if self.kind == "image" else ~pictured)
        return chosen


def _numbered(shape: Sequence[int], device: torch.device, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the tokens given: [B, T] which are real, [B, T] their number in their prompt, and [B, 1] its length so far."""
    mask = inputs.get("attention_mask")
    if mask is None:
        mask = torch.ones(shape[0], cached_tokens(inputs) + shape[1], device=device)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise SurgeryError("an intervention on some tokens takes an attention_mask of [prompts, tokens]. Give one.")
    whole = mask.to(device).long()
    real, number = whole[:, -shape[1] :].bool(), (whole.cumsum(1) - 1)[:, -shape[1] :]
    return real, number, whole.sum(1, keepdim=True)


def on_tokens(chosen: Tensor | None, changed: Tensor, hidden: Tensor) -> Tensor:
    """`changed` at the chosen tokens [B, T], and `hidden` at others; both [B, T, ..., hidden], or [B x T, hidden].

    Raises SurgeryError where the model computes on other tokens than it is given.
    """
    if chosen is None:
        return changed
    if hidden.ndim == 2:
        chosen = chosen.flatten()
    if hidden.shape[: chosen.ndim] != chosen.shape:
        raise SurgeryError(
            f"the model computes on states {list(hidden.shape[:-1])} of tokens {list(chosen.shape)}, so none can be "
            "chosen. Leave positions and tokens out."
        )
    there = chosen.to(hidden.device).reshape(*chosen.shape, *[1] * (hidden.ndim - chosen.ndim))
    return torch.where(there, changed, hidden)
