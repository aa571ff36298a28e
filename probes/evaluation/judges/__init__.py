"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.rules import RULES

__all__ = ["RULES", "Exchange", "Judge"]
