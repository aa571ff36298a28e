"""What a harness's log says, before it is known where in our tables it belongs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlsurgery.probes.prompts import Modality, PromptSet
from vlsurgery.probes.results import Verdict
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Frozen, first_fault


class OwnFields(Frozen):
    """What our own writer and task note beside a prompt, as in CompletionRecord."""

    set: PromptSet
    modality: Modality
    request: str
    role: str | None = None
    answer: str | None = None
    prompts_digest: str | None = None


@dataclass(frozen=True)
class LoggedAnswer:
    """One answer of a model.

    id: of the sample; may occur again where it was asked several times. prompt: the last user message. conversation:
    everything that was asked. target: the right answer, where the log has one; right: whether the log's own scorer
    calls the answer right. generated: whether `text` was written, and not chosen. tokens: None where the log does not
    count them. own: where the prompt is one of ours.
    """

    id: str
    prompt: str
    conversation: str
    text: str
    target: str | None = None
    right: bool | None = None
    pictured: bool = False
    generated: bool = True
    tokens: int | None = None
    cut: bool = False
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    own: OwnFields | None = None


@dataclass(frozen=True)
class HarnessLog:
    """The answers of one model. task: what was run. model: its name; None where the log does not say."""

    path: Path
    task: str
    model: str | None
    answers: Sequence[LoggedAnswer]

    @property
    def own_sets(self) -> dict[str, int]:
        """The prompt sets that our own samples name, with how many there are of each."""
        named = [answer.own.set for answer in self.answers if answer.own]
        return {each: named.count(each) for each in dict.fromkeys(named)}


def own_fields(metadata: dict[str, Any]) -> OwnFields | None:
    """Our own fields among the metadata of a sample; None where it is not ours.

    Ours has a `vlsurgery` key that is true. Raises SurgeryError where such a sample lacks what we always write.
    """
    if metadata.get("vlsurgery") is not True:
        return None
    try:
        return OwnFields.model_validate({key: metadata[key] for key in OwnFields.model_fields if key in metadata})
    except ValidationError as error:
        raise SurgeryError(f"its metadata is not as vlsurgery writes it: {first_fault(error)}") from error
