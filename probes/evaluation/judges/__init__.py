"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.agreement import AgreementResult, against_labels, compare, labels_of
from vlsurgery.probes.evaluation.judges.callables import CallableJudge
from vlsurgery.probes.evaluation.judges.checking import checked
from vlsurgery.probes.evaluation.judges.judge_errors import Confusion, corrected_rate, judge_errors, rogan_gladen
from vlsurgery.probes.evaluation.judges.labels import HumanLabel, read_labels
from vlsurgery.probes.evaluation.judges.opening import judge_texts, open_judge
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.rules import JUDGE, JUDGED_TOKENS, OPENING_WORDS, is_right, judge

__all__ = [
    "JUDGE",
    "JUDGED_TOKENS",
    "OPENING_WORDS",
    "AgreementResult",
    "CallableJudge",
    "Confusion",
    "Exchange",
    "HumanLabel",
    "Judge",
    "against_labels",
    "checked",
    "compare",
    "corrected_rate",
    "is_right",
    "judge",
    "judge_errors",
    "judge_texts",
    "labels_of",
    "open_judge",
    "read_labels",
    "rogan_gladen",
]
