"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.classifier import CLASSIFIER
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.right import is_right
from vlsurgery.probes.evaluation.judges.rules import RULES
from vlsurgery.probes.evaluation.judges.standard import STANDARD
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import JudgeUsed, Label

# Tokens of a completion that a verdict needs; shorter ones, cut off, may not show yet whether they refuse.
JUDGED_TOKENS = 128

JUDGE = JudgeUsed(name=STANDARD.name, tokens=JUDGED_TOKENS, description=STANDARD.description)

__all__ = [
    "CLASSIFIER", "JUDGE", "JUDGED_TOKENS", "RULES", "STANDARD", "Exchange", "Judge", "is_right", "judge",
]  # fmt: skip


def judge(completion: str, prompt: Prompt | None = None) -> Label:
    """The standard judge's label of one completion."""
    asked = Exchange(completion) if prompt is None else Exchange(
        completion, prompt.text, prompt.set, prompt.image is not None, tuple(prompt.topic)
    )  # fmt: skip
    return STANDARD.judge([asked])[0].label
