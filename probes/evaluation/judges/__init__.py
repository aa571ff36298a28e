"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.agreement import AgreementResult, against_labels, compare, labels_of
from vlsurgery.probes.evaluation.judges.callables import CallableJudge
from vlsurgery.probes.evaluation.judges.checking import checked
from vlsurgery.probes.evaluation.judges.classifier import CLASSIFIER
from vlsurgery.probes.evaluation.judges.judge_errors import Confusion, corrected_rate, judge_errors, rogan_gladen
from vlsurgery.probes.evaluation.judges.labels import HumanLabel, read_labels
from vlsurgery.probes.evaluation.judges.opening import Spec, judge_texts, open_judge
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.right import is_right
from vlsurgery.probes.evaluation.judges.rules import RULES
from vlsurgery.probes.evaluation.judges.standard import STANDARD

__all__ = [
    "CLASSIFIER",
    "RULES",
    "STANDARD",
    "AgreementResult",
    "CallableJudge",
    "Confusion",
    "Exchange",
    "HumanLabel",
    "Judge",
    "Spec",
    "against_labels",
    "checked",
    "compare",
    "corrected_rate",
    "is_right",
    "judge_errors",
    "judge_texts",
    "labels_of",
    "open_judge",
    "read_labels",
    "rogan_gladen",
]
