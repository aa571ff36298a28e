"""Findings about a training run's checkpoints as plain data. Imports no torch."""

from typing import ClassVar

from pydantic import Field

from vlsurgery.probes.results import Estimate, Rate
from vlsurgery.surgery.results import Frozen, Result


class RunPoint(Frozen):
    """One model of a training run: the base (at 0) or a checkpoint (1, 2, ... in the order given).

    step: the number that its name has, else its place from 0; None for the base. reads_pictures: whether it sees.
    """

    at: int
    step: int | None
    name: str
    reads_pictures: bool


class RefusalPoint(Frozen):
    """How much one model refuses of one prompt set with one kind of picture.

    log_odds: that a completion begins as the base's refusals do, against every other beginning: mean over requests,
        in nats, with a 95% interval. drop: the base's minus this, on the same prompts; its intervals hold for all
        checkpoints at once, in 95% of cases. The base is asked without the picture where it does not see.
    opens_refusing: the share of prompts whose refusal is likelier than not.
    refused, complied, neither: shares of whole completions by the judge; None where nothing was generated.
    """

    at: int
    step: int | None
    name: str
    set: str
    modality: str
    log_odds: Estimate
    drop: Estimate
    opens_refusing: Rate
    refused: Rate | None = None
    complied: Rate | None = None
    neither: Rate | None = None


class BlockPoint(Frozen):
    """How far one block of the language model was from the base at one checkpoint.

    relative: norm of the difference over that of the base's block. share: of its relative change at the last
        checkpoint; None where that is 0.
    """

    at: int
    step: int | None
    block: str
    relative: float | None
    share: float | None


class Departure(Frozen):
    """When refusals of one prompt set with one kind of picture left. Steps are those of checkpoints that were given.

    fell: the first step at which the drop's interval lies above .05 nats; None where there is none. half: the first
        step at which the drop is at least half of the last checkpoint's. half_after: the step before that, None for
        the first. These two only where refusals stayed down.
    lasting: whether the last checkpoint's drop lies above that too. fell_at, half_at: places of these in the run.
    """

    set: str
    modality: str
    requests: int
    fell: int | None
    fell_at: int | None
    half: int | None
    half_after: int | None
    half_at: int | None
    lasting: bool


class TrajectoryResult(Result):
    """Refusals and weights along a training run.

    points: the base and the checkpoints in order. openings: how the base's refusals begin, in words, which log-odds
    count. blocks: of every checkpoint. departures: of the sets that one should refuse.
    """

    kind: ClassVar[str] = "trajectory"
    row_field: ClassVar[str] = "records"
    shown: ClassVar[tuple[str, ...]] = ("step", "name", "set", "modality", "log_odds.value", "drop.value", "drop.low")

    points: list[RunPoint]
    records: list[RefusalPoint] = Field(alias="rows")
    blocks: list[BlockPoint]
    departures: list[Departure]
    openings: list[str]
    verdict: str
    notes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
