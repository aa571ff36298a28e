"""The forms that refusals, non-answers, moralising, preambles and help take in English."""

from vlsurgery.probes.evaluation.judges.grammar.forms import Found, find
from vlsurgery.probes.evaluation.judges.grammar.help import (
    ARTEFACT,
    BUT,
    DISCLAIMER,
    EMPTY_TALK,
    HELP,
    OFFER,
    PREAMBLE,
    REDIRECT,
    SAFER,
    TURN,
)
from vlsurgery.probes.evaluation.judges.grammar.moralising import (
    ADVICE,
    CONDEMNING,
    CONDUCT,
    DEFINITION,
    DENIALS,
    EQUALITY,
    LAMENTS,
    MORALISING,
    NONSENSE,
)
from vlsurgery.probes.evaluation.judges.grammar.non_answers import NON_ANSWERS, PRIVATE
from vlsurgery.probes.evaluation.judges.grammar.refusals import REFUSALS

__all__ = [
    "ADVICE", "ARTEFACT", "BUT", "CONDEMNING", "CONDUCT", "DEFINITION", "DENIALS", "DISCLAIMER",
    "EMPTY_TALK", "EQUALITY", "HELP", "LAMENTS", "MORALISING",
    "NONSENSE", "NON_ANSWERS", "OFFER", "PREAMBLE", "PRIVATE", "REDIRECT", "REFUSALS", "SAFER", "TURN", "Found", "find",
]  # fmt: skip
