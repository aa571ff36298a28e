"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.rules import JUDGE, JUDGED_TOKENS, OPENING_WORDS, is_right, judge

__all__ = ["JUDGE", "JUDGED_TOKENS", "OPENING_WORDS", "Exchange", "Judge", "is_right", "judge"]
