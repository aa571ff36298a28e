"""Judges by name, and texts judged in one call."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeGuard

from vlsurgery.probes.evaluation.judges.callables import CallableJudge
from vlsurgery.probes.evaluation.judges.checking import checked, shown
from vlsurgery.probes.evaluation.judges.guards import open_checkpoint_judge
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import Verdict
from vlsurgery.surgery.errors import SurgeryError

JUDGES: Final[dict[str, tuple[str, str]]] = {
    "standard": ("vlsurgery.probes.evaluation.judges.standard", "STANDARD"),
    "rules": ("vlsurgery.probes.evaluation.judges.rules", "RULES"),
    "classifier": ("vlsurgery.probes.evaluation.judges.classifier", "CLASSIFIER"),
}
"""The package's own judges: name -> where it is, imported when asked for."""

CHECKPOINT: Final = "hf:"

Spec = str | Judge | Callable[[list[str], list[str | None]], Any]


def open_judge(spec: Spec, labels: Mapping[str, str] | str | None = None) -> Judge:
    """The judge that `spec` names.

    spec: "standard", "rules" or "classifier"; "hf:DIRECTORY", "hf:ORG/NAME" or "hf:ORG/NAME@REVISION" for a
        text-classification checkpoint or a guard model (`#FORMAT` behind it forces a guard's prompt format); in the
        library also a function f(completions, prompts) (see CallableJudge), or a judge, which is returned as it is.
    labels: for a text-classification checkpoint whose labels don't say what they mean: its label -> refused, complied
        or neither, as a mapping or as "LABEL_0=refused,LABEL_1=complied".

    A checkpoint's config, tokenizer and labels are checked at once; its weights are loaded when it first judges.
    Raises SurgeryError that lists what there is.
    """
    if labels is not None and not (isinstance(spec, str) and spec.startswith(CHECKPOINT)):
        raise SurgeryError(
            f"labels go with a text-classification checkpoint (hf:ID), not with judge {_name(spec)}. Leave them out."
        )
    if isinstance(spec, str):
        if spec.startswith(CHECKPOINT):
            return open_checkpoint_judge(spec, labels, rules=lambda: open_judge("rules"))
        if spec in JUDGES:
            module, attribute = JUDGES[spec]
            found: Judge = getattr(import_module(module), attribute)
            return found
        raise SurgeryError(f"unknown judge {spec!r}. Expected one of {', '.join(JUDGES)}, hf:ID or hf:DIRECTORY.")
    if is_judge(spec):
        return spec
    if callable(spec) and not isinstance(spec, type):
        return CallableJudge(spec)
    raise SurgeryError(
        f"judge {shown(spec)}: expected a name ({', '.join(JUDGES)}, hf:ID), a function f(completions, prompts), or an "
        "object with name, description and judge()."
    )


def is_judge(value: object) -> TypeGuard[Judge]:
    """Whether a value has what a Judge has; a class is none, its instances may be."""
    has_text = all(isinstance(getattr(value, name, None), str) for name in ("name", "description"))
    return not isinstance(value, type) and has_text and callable(getattr(value, "judge", None))


def judge_texts(
    completions: Iterable[str],
    prompts: Iterable[str | Prompt | None] | None = None,
    judge: Spec = "standard",
) -> list[Verdict]:
    """What each completion does (refused, complied, neither), and why: one verdict a completion, in their order.

    completions: texts without special tokens. prompts: what was asked, one for each; a judge knows more from a Prompt
        (its set, its picture, its topic) than from its text. judge: what `open_judge` takes.

    Raises SurgeryError where the lengths differ, a row is no text, or the judge can't be had or fails.
    """
    texts = _texts(completions)
    asked = _asked(prompts, len(texts))
    opened = open_judge(judge)
    return checked(opened, [_exchange(*pair) for pair in zip(texts, asked, strict=True)]) if texts else []


def _texts(completions: Iterable[str]) -> list[str]:
    if isinstance(completions, str | bytes):
        raise SurgeryError("completions: expected a list of texts, found one text. Write [text].")
    if not isinstance(completions, Iterable):
        raise SurgeryError(f"completions: expected a list of texts, found {shown(completions)}.")
    texts = list(completions)
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise SurgeryError(f"completions, row {row}: expected a text, found {shown(text)}.")
    return texts


def _asked(prompts: Iterable[str | Prompt | None] | None, count: int) -> Sequence[str | Prompt | None]:
    if prompts is None:
        return [None] * count
    if isinstance(prompts, str | bytes | Prompt) or not isinstance(prompts, Iterable):
        raise SurgeryError(
            f"prompts: expected a list, one for each completion, found {shown(prompts)}. Write [prompt]."
        )
    asked = list(prompts)
    if len(asked) != count:
        raise SurgeryError(f"prompts: expected {count}, one for each completion, found {len(asked)}.")
    for row, prompt in enumerate(asked, start=1):
        if not (prompt is None or isinstance(prompt, str | Prompt)):
            raise SurgeryError(f"prompts, row {row}: expected a text, a Prompt or None, found {shown(prompt)}.")
    return asked


def _exchange(completion: str, prompt: str | Prompt | None) -> Exchange:
    if not isinstance(prompt, Prompt):
        return Exchange(completion, prompt)
    return Exchange(completion, prompt.text, prompt.set, prompt.modality != "text", prompt.topic)


def _name(spec: object) -> str:
    return repr(spec) if isinstance(spec, str) else str(getattr(spec, "name", None) or getattr(spec, "__name__", spec))
