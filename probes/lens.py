"""The logit lens: the log-odds of a refusal that the model's own read-out gives behind every layer.

nostalgebraist, "interpreting GPT: the logit lens" (2020). The state behind a layer is put in the last layer's place:
all that the class does from there on (final norm, head, scaling, soft caps) makes logits of it. Behind the last layer
these are the model's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from vlsurgery.probes.evaluation.mean_intervals import mean_estimate
from vlsurgery.probes.layer_results import LayerCurve
from vlsurgery.probes.models import ChatModel, Encoded
from vlsurgery.probes.models.head import answers_at_once
from vlsurgery.probes.next_tokens import opening_odds

DIGITS: Final = 4  # significant, of what is kept for every layer
MAX_READ: Final = 1024  # states that are read at once

ReadOut = Callable[[Tensor], Tensor]  # states behind the last layer [n, hidden] -> logits [n, vocabulary]


def keeps_one_stream(chat: ChatModel) -> bool:
    """Whether blocks pass one residual stream on, which alone makes the logits (Gemma 3n passes several)."""
    config: Any = chat.model.config
    return not hasattr(config.get_text_config(), "altup_active_idx")


def lens_odds(states: Tensor, read: ReadOut, openings: Tensor, at_once: int) -> Tensor:
    """[n, layers] refusal log-odds in nats, float64, of residual streams [n, layers, hidden].

    openings: tokens with which refusals begin. at_once: states whose logits are made together.
    """
    parts = [opening_odds(read(some), openings).double().cpu() for some in states.flatten(0, 1).split(at_once)]
    return torch.cat(parts).unflatten(0, states.shape[:2])


def read_out(chat: ChatModel, encoded: Sequence[Encoded]) -> ReadOut:
    """Gives logits of states as if they were the last layer's, in passes over the shortest of some prompts."""
    (batch,) = chat.batches([min(encoded, key=lambda item: len(item.ids))])

    def read(states: Tensor) -> Tensor:
        with torch.no_grad(), _in_place_of(chat.blocks[-1], states):
            logits: Tensor = chat.model(**batch.inputs, use_cache=False).logits
        if len(logits[0]) != len(states):
            raise RuntimeError(f"{len(states)} states were to be read, but the model gave {len(logits[0])} logits")
        return logits[0].float()

    return read


@contextmanager
def _in_place_of(block: nn.Module, states: Tensor) -> Iterator[None]:
    """While open, a block returns states [n, hidden] as its stream of one prompt, whatever it computes."""

    def replace(module: nn.Module, args: object, output: Any) -> Any:  # noqa: ARG001
        hidden = output if isinstance(output, Tensor) else output[0]
        given = states.to(hidden)[None]
        return given if isinstance(output, Tensor) else type(output)((given, *output[1:]))

    handle = block.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def states_at_once(chat: ChatModel) -> int:
    """States whose logits there is room for."""
    return answers_at_once(chat, [torch.zeros(1)], MAX_READ)


def curve(values: np.ndarray, requests: Sequence[str], where: Mapping[str, str], layers: Sequence[int]) -> LayerCurve:
    """Means over requests behind each layer, of values [prompts, layers]. where: role, modality and set."""
    found = [mean_estimate(column, requests) for column in values.T.tolist()]
    return LayerCurve(
        **where,
        layers=list(layers),
        value=[rounded(each.value) or 0.0 for each in found],
        low=[rounded(each.low) for each in found],
        high=[rounded(each.high) for each in found],
        requests=found[0].n,
    )


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """A number to so many significant digits; what there isn't stays missing."""
    return None if value is None else float(f"{value:.{digits}g}")


def evenly_from_last(count: int, most: int) -> list[int]:
    """Layers evenly spaced, `most` at most, the last of them among them."""
    step = -(-count // most)
    return list(range(count - 1, -1, -step))[::-1]
