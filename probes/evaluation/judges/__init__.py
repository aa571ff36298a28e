"""Judges: what a completion does (refused, complied, neither), and why one says so."""

from vlsurgery.probes.evaluation.judges.classifier import CLASSIFIER
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.evaluation.judges.rules import RULES
from vlsurgery.probes.evaluation.judges.standard import STANDARD

__all__ = ["CLASSIFIER", "RULES", "STANDARD", "Exchange", "Judge"]
