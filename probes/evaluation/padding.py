"""Whether a model that generates takes padding for words: some classes with a recurrent state do (RWKV, MiniMax)."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from vlsurgery.probes.models import Batch, ChatModel, Encoded
from vlsurgery.probes.models.batches import MAX_ROWS, Rows

STEPS: Final = 2  # the prompt, and a step that goes on from what was kept of it
# Of logits, relative to their length: what sums in another order come to at least. A batch of two without padding
# changes those of SmolLM2 in bfloat16 by .02 to .11, other prompts of one model by other amounts.
ROUNDING: Final = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 1e-2}
NOISE: Final = 4.0  # times what a batch of two equal prompts changes, of the short or of the long one


def reads_padding(chat: ChatModel, encoded: Sequence[Encoded]) -> bool:
    """Whether a prompt's logits change with padding before it, tried on the shortest and the longest prompt that may be
    in one batch, in text and with pictures. The batches must be even then, and a note says so.

    To be called while the model decodes greedily.
    """
    for pictured in (False, True):
        kind = [item for item in encoded if (item.prompt.image is not None) == pictured]
        pair = _uneven(chat, kind)
        if pair and not _alike(chat, *pair):
            chat.note(
                f"{chat.name} reads padding as words, so prompts are answered in batches of one length, which is slower"
            )
            return True
    return False


def _uneven(chat: ChatModel, kind: Sequence[Encoded]) -> tuple[Encoded, Encoded] | None:
    """The shortest and the longest prompt of the batch whose lengths differ most; None where all are even."""
    rows = Rows(kind)
    ends = [(batch[0], batch[-1]) for batch in rows.divided(MAX_ROWS, chat.room.tokens)]  # in order of length
    short, long = max(ends, key=lambda pair: rows.length(pair[1]) - rows.length(pair[0]), default=(0, 0))
    return (kind[short], kind[long]) if short != long and rows.length(short) < rows.length(long) else None


def _alike(chat: ChatModel, short: Encoded, long: Encoded) -> bool:
    """Whether the shorter prompt gets the same logits beside the longer one as alone, as far as both write the same.

    As close as beside itself, that is: a batch of another size rounds otherwise, without any padding.
    """
    single, padded = _logits(chat, [short]), _logits(chat, [short, long])
    least = ROUNDING.get(next(chat.model.parameters()).dtype, max(ROUNDING.values()))
    # Of the prompts alone: a class may err with what it kept, without padding too.
    noise = max(_off(_logits(chat, [item, item])[0], _logits(chat, [item])[0]) for item in (short, long))
    for one, other in zip(padded, single, strict=False):
        if _off(one, other) > max(least, NOISE * noise):
            return False
        if one.argmax() != other.argmax():
            return True
    return True


def _off(one: Tensor, other: Tensor) -> float:
    """How far logits are from others, relative to those."""
    seen = one.isfinite() & other.isfinite()  # some tokens are barred
    return float((one - other)[seen].norm() / other[seen].norm().clamp(min=1e-9))


def _logits(chat: ChatModel, items: Sequence[Encoded]) -> list[Tensor]:
    """[vocabulary] float32 logits of the first prompt's first steps, in one batch with the others where that fits."""

    def write(batch: Batch) -> Any:
        model: Any = chat.model
        with torch.no_grad():
            return model.generate(
                **batch.inputs, max_new_tokens=STEPS, output_logits=True, return_dict_in_generate=True
            ).logits

    done = chat.each_batch(write, items, pad="left", tokens=STEPS)
    return next([step[batch.index.index(0)].float() for step in logits] for batch, logits in done if 0 in batch.index)
