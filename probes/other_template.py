"""A model under another's chat template: how much of what is seen of it is the template's doing.

The base under the adapted model's template is the graft in text; this is the other half, the models that see under the
base's template.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity

from vlsurgery.probes.activations import INSTRUCTION
from vlsurgery.probes.contrasts import Directions, SeparatedRole, contrast, difference_of_means, separate
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate
from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.layer_readings import short, shown_prompts
from vlsurgery.probes.layer_results import OtherTemplate
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.next_tokens import next_tokens, read_openings
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import Estimate
from vlsurgery.probes.templates import ChatTemplate
from vlsurgery.surgery.errors import SurgeryError

NO_TEMPLATE = "was not asked: the base has no chat template"
READ_ALIKE = "was not asked: it reads text alike under its own"
NO_OPENINGS = "the base's refusals have no opening of their own"


@dataclass(frozen=True)
class OwnReading:
    """What was found of a model in text under its own template."""

    role: str
    directions: Directions
    separated: SeparatedRole


def under_template(
    chat: ChatModel,
    template: ChatTemplate | None,
    prompts: Sequence[Prompt],
    openings: Sequence[int],
    own: OwnReading,
) -> OtherTemplate:
    """What changes under another template, in text.

    template: the base's. openings: with which refusals begin, as the model's tokens.

    Where this model can't be asked under that template (its processor rewrites it, prompts become too long), the result
    says so: all else that is known of the model stands.
    """
    if template is None:
        return _nothing(own, NO_TEMPLATE)
    try:
        return _compared(chat, template, prompts, openings, own)
    except SurgeryError as error:
        return _nothing(own, f"could not be asked: {str(error).rstrip('.')}")


def _compared(
    chat: ChatModel, template: ChatTemplate, prompts: Sequence[Prompt], openings: Sequence[int], own: OwnReading
) -> OtherTemplate:
    other, made_on, shown_on = chat.under(template), *(contrast(prompts, split, "text") for split in ("fit", "report"))
    pairs = zip(chat.encode(shown_on), other.encode(shown_on), strict=True)
    if all(torch.equal(ours.ids, theirs.ids) for ours, theirs in pairs):
        return _nothing(own, READ_ALIKE)
    directions = difference_of_means(other, made_on)
    separated = separate(other, shown_on, directions, own.role, "text")
    at, there = own.directions.positions.index(INSTRUCTION), directions.positions.index(INSTRUCTION)
    cosines = cosine_similarity(own.directions.values[at], directions.values[there], dim=-1)
    odds, other_odds, difference = _odds(chat, other, prompts, openings)
    return OtherTemplate(
        role=own.role,
        cosine=short(cosines),
        split_half=short(own.directions.split_half[at]),
        apart=own.separated.best,
        other_apart=separated.best,
        odds=odds,
        other_odds=other_odds,
        difference=difference,
        said=in_words(difference),
    )


def in_words(change: Estimate) -> str:
    """What a difference of refusal log-odds says of a model."""
    if change.value is None or change.low is None or change.high is None:
        return f"could not be compared: {change.reason}"
    moved = "more likely" if change.low > 0 else "less likely" if change.high < 0 else "as likely, as far as seen,"
    told = f"is {moved} to refuse harmful text" if enough(change.n) else "was asked too few requests to tell more"
    between = f"[{change.low:+.2f}, {change.high:+.2f}]"
    return f"{told}: {change.value:+.2f} {between} nats of log-odds ({change.n} requests)"


def _odds(
    chat: ChatModel, other: ChatModel, prompts: Sequence[Prompt], openings: Sequence[int]
) -> tuple[Estimate, Estimate, Estimate]:
    """Refusal log-odds under the own template, under the other, and the latter less the former."""
    if not openings:
        missing = Estimate(value=None, reason=NO_OPENINGS)
        return missing, missing, missing
    asked, ids = shown_prompts(prompts, "harmful", "text"), torch.tensor(list(openings), device=chat.device)
    ours, theirs = (read_openings(each, next_tokens(each, asked), ids).odds for each in (chat, other))
    requests = [prompt.request for prompt in asked]
    first, second, third = (mean_estimate(values.tolist(), requests) for values in (ours, theirs, theirs - ours))
    return first, second, third


def _nothing(own: OwnReading, said: str) -> OtherTemplate:
    missing = Estimate(value=None, reason=said)
    return OtherTemplate(
        role=own.role,
        apart=own.separated.best,
        other_apart=missing,
        odds=missing,
        other_odds=missing,
        difference=missing,
        said=said,
    )
