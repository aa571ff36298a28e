"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.checking import checked
from vlsurgery.probes.evaluation.judges.classifier import CLASSIFIER
from vlsurgery.probes.evaluation.judges.opening import Spec, judge_texts, open_judge
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.rules import RULES
from vlsurgery.probes.evaluation.judges.standard import STANDARD
from vlsurgery.probes.evaluation.judges.text import plain

__all__ = [
    "CLASSIFIER",
    "RULES",
    "STANDARD",
    "Exchange",
    "Judge",
    "Spec",
    "checked",
    "is_right",
    "judge_texts",
    "open_judge",
]


def is_right(a, b):
    return plain(a) == plain(b)
