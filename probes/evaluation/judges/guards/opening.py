"""The judge that "hf:..." names, by the class of its checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from vlsurgery.probes.evaluation.judges.guards.formats import FORMATS, format_of
from vlsurgery.probes.evaluation.judges.guards.generative import GuardJudge
from vlsurgery.probes.evaluation.judges.guards.loading import open_judge_checkpoint
from vlsurgery.probes.evaluation.judges.guards.sequence_classifier import SequenceClassifierJudge
from vlsurgery.probes.evaluation.judges.protocol import Judge
from vlsurgery.surgery.errors import SurgeryError

PREFIX: Final = "hf:"


def open_checkpoint_judge(
    spec: str, labels: Mapping[str, str] | str | None, rules: Callable[[], Judge]
) -> SequenceClassifierJudge | GuardJudge:
    """The judge of a checkpoint.

    spec: hf:DIRECTORY, hf:ORG/NAME or hf:ORG/NAME@REVISION; `#FORMAT` behind it says which guard's prompt it takes,
        for a guard whose name doesn't. labels: what a text classifier's labels mean. rules: the judge that decides
        what the checkpoint doesn't.

    Raises SurgeryError of one line: no such model, neither classifier nor known guard, labels without a meaning.
    """
    ref, form = _split(spec.removeprefix(PREFIX))
    if not ref:
        raise SurgeryError(f"judge {spec!r}: names no model. Give hf:DIRECTORY or hf:ORG/NAME.")
    checkpoint = open_judge_checkpoint(ref)
    if form is None and checkpoint.architecture.endswith("ForSequenceClassification"):
        return SequenceClassifierJudge(checkpoint, labels, rules)
    if labels is not None:
        raise SurgeryError(f"judge {spec}: labels go with a text classifier, and this is a guard. Leave them out.")
    if not checkpoint.architecture.endswith("ForCausalLM"):
        raise SurgeryError(
            f"judge {spec}: expected a model ForSequenceClassification, or a guard ForCausalLM, found "
            f"{checkpoint.architecture or 'no architecture in its config'}. Choose another model."
        )
    names = tuple(name for name in (ref, checkpoint.origin) if name)
    form = form or format_of(names, getattr(checkpoint.config, "model_type", None))
    if form is None:
        raise SurgeryError(
            f"judge {spec}: its name tells no guard that is known here. Say which prompt it takes: "
            f"{PREFIX}{ref}#FORMAT, one of {', '.join(FORMATS)}."
        )
    return GuardJudge(spec, checkpoint, form, rules)


def _split(ref: str) -> tuple[str, str | None]:
    """A reference and its format. A directory of that name wins."""
    head, hash_, form = ref.rpartition("#")
    if not hash_ or Path(ref).is_dir():
        return ref, None
    if form not in FORMATS:
        raise SurgeryError(f"judge {PREFIX}{ref}: unknown format {form!r}. Expected one of {', '.join(FORMATS)}.")
    return head, form
