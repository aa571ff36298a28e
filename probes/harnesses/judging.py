"""The judge that the inspect task scores with."""

from collections.abc import Sequence

from vlsurgery.probes.evaluation.judges import JUDGE, Exchange, Judge, judge
from vlsurgery.probes.results import Kind, Label, Verdict
from vlsurgery.surgery.errors import SurgeryError

_KINDS: dict[Label, Kind] = {"refused": "refusal", "complied": "compliance", "neither": "undecided"}


class _Rules:
    """The rules of `judges.rules` as a Judge."""

    name = "standard"
    description = JUDGE.description

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        labels = [judge(exchange.completion) for exchange in exchanges]
        return [Verdict(label=label, kind=_KINDS[label], reason="its words") for label in labels]


def open_judge(spec: str) -> Judge:
    """The judge that `spec` names."""
    if spec != "standard":
        raise SurgeryError(f"unknown judge {spec!r}. Expected standard.")
    return _Rules()
