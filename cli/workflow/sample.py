"""A sample of the prompts, by request: how large it is, which requests are in it, and how well it tells a rate.

Every request has a place between 0 and 1 among those of its split that come with the same sets and modalities, in
seeded order. A sample of a share takes all requests whose place is below it, so that smaller samples lie within larger
ones, splits, sets and modalities keep their shares, and a request keeps its twin, its wrappings and its pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.prompts import Prompt

MIN_REQUESTS: Final = 8  # of a set in a split that every sample has, where there are so many
FULL: Final = "full"
SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3600}
TOLD_RATE: Final = 0.9  # for which the interval is told beforehand


@dataclass(frozen=True)
class Sample:
    """How many of the prompts are asked. budget: what the user said, and steps: for which. share: of the requests, in
    [0, 1]."""

    budget: str = FULL
    share: float = 1.0
    steps: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, object]:
        """What a step records of it; nothing where all prompts are asked."""
        if self.is_full:
            return {}
        return {"sample": {"budget": self.budget, "share": self.share, "steps": list(self.steps)}}

    @property
    def is_full(self) -> bool:
        return self.share >= 1.0

    @classmethod
    def recorded(cls, prompts: Mapping[str, object]) -> "Sample":
        """That of a step's recorded prompts."""
        found = prompts.get("sample")
        return cls(found["budget"], found["share"], tuple(found["steps"])) if isinstance(found, dict) else cls()


ALL: Final = Sample()


def budget_seconds(text: str) -> float | None:
    """The seconds of a budget such as 90s, 10m, 1.5h; None for full. Raises SurgeryError for anything else."""
    if text == FULL:
        return None
    number, unit = text[:-1], text[-1:]
    digits = number.replace(".", "", 1)
    if unit not in SECONDS_OF or not (digits.isascii() and digits.isdecimal()) or not float(number):
        raise SurgeryError(f"--budget {text}: expected a time such as 10m or 1h, or full. Give one of these.")
    return float(number) * SECONDS_OF[unit]


def places(prompts: "Sequence[Prompt]", seed: int) -> dict[tuple[str, str], float]:
    """(split, request) -> its place in [0, 1); 0 for the first MIN_REQUESTS of every set and split."""
    from vlsurgery.probes.prompts.splits import seeded_unit

    kinds: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for prompt in prompts:
        kinds.setdefault((prompt.split, prompt.request), set()).add((prompt.set, prompt.modality))
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[tuple[str, str]]] = {}
    for key, kind in sorted(kinds.items(), key=lambda item: (seeded_unit(item[0][1], seed), item[0])):
        groups.setdefault((key[0], frozenset(kind)), []).append(key)
    found = {key: at / len(group) for group in groups.values() for at, key in enumerate(group)}
    order = sorted(found, key=lambda key: found[key])  # among equals the seeded order of the group stands
    members: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key in order:
        for name in {set_ for set_, _ in kinds[key]}:
            members.setdefault((key[0], name), []).append(key)
    return found | {key: 0.0 for keys in members.values() for key in keys[:MIN_REQUESTS]}


def sampled(prompts: "Sequence[Prompt]", share: float, seed: int) -> "list[Prompt]":
    """The prompts of the requests whose place is below `share`, and of those at 0, in the order that they had."""
    found = places(prompts, seed)
    return [p for p in prompts if (at := found[p.split, p.request]) < share or not at]


def shares(prompts: "Sequence[Prompt]", seed: int) -> list[float]:
    """Every share at which the sample grows, rising; the last one is 1, which takes all."""
    return sorted({*places(prompts, seed).values(), 1.0})


def sizes_told(asked: "Sequence[Prompt]", all_: "Sequence[Prompt]") -> Iterator[str]:
    """A line a set: how many requests are measured of how many there are, and how well that tells a rate."""
    from vlsurgery.probes.evaluation.intervals import wilson
    from vlsurgery.probes.prompts import SETS

    for name in SETS:
        some, every = (len({p.request for p in each if (p.set, p.split) == (name, "report")}) for each in (asked, all_))
        if every:
            low, high = wilson(TOLD_RATE * some, some)
            yield (
                f"{some} of {every} {name} requests are measured: a rate of {TOLD_RATE:.2f} will be known to "
                f"±{(high - low) / 2:.2f}"
            )
