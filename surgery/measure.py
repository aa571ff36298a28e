"""Everything that is measured of one pair: its sums, its heads or experts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from surgery.alignment import Aligned, Alignment
from surgery.heads import Cut, cut_of
from surgery.metrics import DeltaSums, Sums
from surgery.results import BetweenMetrics, DeltaMetrics, ExpertMetrics, HeadMetrics, PairMetrics
from surgery.stretches import STRETCH, Memory, Source, is_run
from surgery.tally import Tally

# Entries of a pair that are summed up in one go: large pairs are dealt out to several threads.
DEALT: Final = 1 << 23


class Task(NamedTuple):
    """A stretch of one pair to sum up."""

    pair: Aligned
    start: int
    stop: int


@dataclass
class Measured:
    """What was measured of one pair. deltas: role that a delta ends in -> metrics of its heads or experts and of its
    spectrum, by name. between: those of both spectra."""

    sums: Sums
    deltas: dict[str, dict[str, object]] = field(default_factory=dict)
    between: dict[str, object] = field(default_factory=dict)

    def metrics(self) -> PairMetrics:
        plain = self.sums.metrics()
        return PairMetrics(
            vl=plain.vl and _with(plain.vl, self.deltas.get("adapted", {})),
            safety=plain.safety and _with(plain.safety, self.deltas.get("safety", {})),
            between=plain.between and _with(plain.between, self.between),
        )


class Survey:
    """Measures the pairs of an alignment. roles: base, adapted and safety -> the alignment's own names of them."""

    def __init__(self, alignment: Alignment, roles: Mapping[str, str]) -> None:
        self.alignment, self.roles = alignment, dict(roles)
        self.memory = Memory()

    def held(self, pair: Aligned) -> list[str]:
        """Which of base, adapted and safety a pair has."""
        return [word for word, role in self.roles.items() if role in pair.parts]

    def cut(self, pair: Aligned) -> Cut:
        """How a pair divides into heads or experts, by the config of the base where that has the tensor."""
        owner = self.roles["base" if "base" in self.held(pair) else "adapted"]
        config = self.alignment.checkpoints[owner].config
        return cut_of(pair.site, pair.shape, pair.parts[self.alignment.like].name, config)

    def tasks(self, pair: Aligned) -> list[Task]:
        """Stretches of a pair that can be summed up apart: they begin and end with a head, an expert or a row."""
        if not all(is_run(self.alignment, pair, self.roles[word]) for word in self.held(pair)):
            return [Task(pair, 0, pair.numel)]
        cut = self.cut(pair)
        unit = pair.shape[-1] if cut.columns or cut.kind == "whole" and pair.shape else pair.numel // cut.count
        size = max(1, DEALT // max(1, unit)) * unit
        return [Task(pair, start, min(start + size, pair.numel)) for start in range(0, pair.numel, size or 1)] or [
            Task(pair, 0, 0)
        ]

    def run(self, task: Task) -> tuple[Task, Tally]:
        """Sum up a stretch of a pair."""
        pair, cut, words = task.pair, self.cut(task.pair), self.held(task.pair)
        source = Source(self.alignment, pair, [self.roles[word] for word in words], self.memory)
        names = {word: self.alignment.label(pair, self.roles[word]) for word in words}
        tally = Tally(pair.numel, words, cut.count, pair.shape[-1] if cut.columns else 0)
        for start, stop, part in _steps(pair, cut, task.start, task.stop):
            found = source.read(start, stop)
            chunk = {word: found[self.roles[word]] for word in words}
            tally.add(chunk, names, self.memory.buffers, part)
        return task, tally

    def measured(self, pair: Aligned, tally: Tally) -> Measured:
        """What the sums of a whole pair say."""
        codes = {word: self.alignment.tensor(pair, self.roles[word]).code for word in self.held(pair)}
        cut = self.cut(pair)
        deltas = {role: _parts(cut, tally.part_sums(role)) for role in ("adapted", "safety")}
        return Measured(tally.sums(codes), deltas)


Metrics = TypeVar("Metrics", DeltaMetrics, BetweenMetrics)


def _with(metrics: Metrics, more: Mapping[str, object]) -> Metrics:
    """Metrics with some more of them; reasons are added to those that are there."""
    why = {**metrics.why, **more.get("why", {})}  # type: ignore[dict-item]
    return metrics.model_copy(update={**more, "why": why})


def _steps(pair: Aligned, cut: Cut, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """First and last entry of what is read in one go, and the part that it belongs to."""
    if cut.columns or cut.kind == "whole":
        row = pair.shape[-1] if cut.columns else 1
        size = max(1, STRETCH // row) * row
        yield from ((place, min(place + size, stop), 0) for place in range(start, stop, size))
        return
    extent = pair.numel // cut.count
    for part in range(start // extent, stop // extent):
        first, last = part * extent, (part + 1) * extent
        yield from ((place, min(place + STRETCH, last), part) for place in range(first, last, STRETCH))


def _parts(cut: Cut, sums: Sequence[DeltaSums]) -> dict[str, object]:
    """The metrics of heads or experts under their key, or the reason why there are none."""
    if cut.why is not None:
        return {"why": {"heads": cut.why}}
    if cut.kind == "whole" or not sums:
        return {}
    if cut.kind == "experts":
        return {"experts": [ExpertMetrics(expert=number, **_numbers(each)) for number, each in enumerate(sums)]}
    words = cut.words or tuple((None, number) for number in range(cut.count))
    heads = [HeadMetrics(part=word, head=number, **_numbers(each)) for (word, number), each in zip(words, sums, strict=True)]
    return {"heads": heads}


def _numbers(sums: DeltaSums) -> dict[str, float | None]:
    return {"relative": sums.relative, "cosine": sums.cosine, "rms": sums.rms}
