"""Everything that is measured of one pair: its sums, its heads or experts, its spectra."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.diff.accumulator import Tally
from vlsurgery.surgery.diff.heads import Cut, cut_of
from vlsurgery.surgery.diff.metrics import DeltaSums, Sums
from vlsurgery.surgery.diff.pair_spectra import DELTAS, PairSpectra
from vlsurgery.surgery.diff.reader import FLOAT32, STRETCH, Gathered, PairReader, is_contiguous
from vlsurgery.surgery.diff.rounding_noise import are_kin
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics, ExpertMetrics, HeadMetrics, PairMetrics
from vlsurgery.surgery.runtime.memory_budget import MemoryBudget
from vlsurgery.surgery.runtime.scratch import ScratchBuffers

# A matrix is held in memory, in float32, up to so many bytes; a larger one is made again for every pass. All that the
# spectra of a pair are of is held up to GATHERED bytes, and read once. SHUFFLED is the limit for a pair that is held
# three times over, and ALL_HELD what all threads hold at once.
HELD: Final = 288 << 20
GATHERED: Final = 120 << 20
SHUFFLED: Final = 160 << 20
ALL_HELD: Final = 400 << 20

# Entries of a pair that are summed up in one go: large pairs are dealt out to several threads.
DEALT: Final = 1 << 23


class Stretch(NamedTuple):
    """A stretch of one pair to sum up."""

    pair: Aligned
    start: int
    stop: int


class Whole(NamedTuple):
    """A pair whose spectra are to be found; and that is to be summed up, where it is read for that once."""

    pair: Aligned
    summed: bool


class Found(NamedTuple):
    """What a piece of work gave."""

    tally: Tally | None = None
    spectra: PairSpectra | None = None


Work = Stretch | Whole


@dataclass
class Measured:
    """What was measured of one pair. deltas: role that a delta ends in -> metrics of its heads or experts and of its
    spectrum, by name. between: those of both spectra."""

    sums: Sums
    deltas: dict[str, dict[str, Any]] = field(default_factory=dict)
    between: dict[str, Any] = field(default_factory=dict)

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
        self.memory = ScratchBuffers()
        self._budget = MemoryBudget(ALL_HELD)

    def held(self, pair: Aligned) -> list[str]:
        """Which of base, adapted and safety a pair has."""
        return [word for word, role in self.roles.items() if role in pair.parts]

    def _first(self, pair: Aligned) -> str:
        """The one of them that a pair's first delta starts from."""
        return "base" if "base" in self.held(pair) else "adapted"

    def cut(self, pair: Aligned) -> Cut:
        """How a pair divides into heads or experts, by the config of the base where that has the tensor."""
        config = self.alignment.checkpoints[self.roles[self._first(pair)]].config
        return cut_of(pair.site, pair.shape, pair.parts[self.alignment.like].name, config)

    def tasks(self, pair: Aligned, spectra: bool) -> list[Work]:
        """What there is to do on a pair: to sum up stretches of it, which begin and end with a head, an expert or a
        row, and where asked for to find its spectra, which comes last; or both at once, where it can be held."""
        if spectra and self._is_gathered(pair):
            return [Whole(pair, summed=True)]
        cut, size = self.cut(pair), pair.numel
        if pair.numel and all(is_contiguous(self.alignment, pair, self.roles[word]) for word in self.held(pair)):
            unit = pair.shape[-1] if cut.columns else 1 if cut.kind == "whole" else pair.numel // cut.count
            size = max(1, DEALT // unit) * unit
        stretches = [Stretch(pair, start, min(start + size, pair.numel)) for start in range(0, pair.numel, size or 1)]
        whole = [Whole(pair, summed=False)] if spectra else []
        return [*(stretches or [Stretch(pair, 0, 0)]), *whole]

    def run(self, work: Work) -> tuple[Work, Found]:
        """Do one piece of work; any thread may."""
        if isinstance(work, Stretch):
            return work, Found(tally=self._tally(self._source(work.pair), work))
        return work, self._whole(work)

    def needs_much(self, pair: Aligned) -> bool:
        """Whether a pair's spectra leave no room for those of another such one."""
        return self._spectra_bytes(pair) > ALL_HELD // 2

    def _spectra_bytes(self, pair: Aligned) -> int:
        """What a pair's spectra take in memory."""
        from vlsurgery.surgery.diff.spectra import directions_bytes, without_spectrum

        if without_spectrum(pair.shape) is not None:
            return 0
        matrix = self._gathered_bytes(pair) if self._is_gathered(pair) else 4 * pair.numel
        return directions_bytes(pair.shape) + (matrix if matrix <= HELD else 0)

    def _deltas(self, pair: Aligned) -> list[str]:
        """The roles that a pair's deltas end in."""
        held = self.held(pair)
        return [end for end, start in DELTAS.items() if {end, start} <= set(held)]

    def _start_dtype(self, pair: Aligned) -> np.dtype:
        from vlsurgery.surgery.diff.spectra import start_dtype

        return start_dtype(self.alignment.tensor(pair, self.roles[self._first(pair)]).array_dtype, pair.shape)

    def _gathered_bytes(self, pair: Aligned) -> int:
        return pair.numel * (self._start_dtype(pair).itemsize + FLOAT32.itemsize * len(self._deltas(pair)))

    def _is_gathered(self, pair: Aligned) -> bool:
        """Whether all that a pair's spectra are of is held, and read once."""
        from vlsurgery.surgery.diff.spectra import without_spectrum

        return without_spectrum(pair.shape) is None and self._gathered_bytes(pair) <= GATHERED

    def _gathered(self, pair: Aligned) -> Gathered:
        """Memory for all that a pair's spectra are of."""
        deltas = {role: self.memory.vector(f"to {role}", pair.numel, FLOAT32) for role in self._deltas(pair)}
        return Gathered(self.memory.vector("start", pair.numel, self._start_dtype(pair)), deltas)

    def _source(self, pair: Aligned) -> PairReader:
        return PairReader(self.alignment, pair, [self.roles[word] for word in self.held(pair)], self.memory)

    def _whole(self, work: Whole) -> Found:
        from vlsurgery.surgery.diff.spectra import gathered_matrices, pair_spectra, read_matrices, without_spectrum

        pair, reason = work.pair, without_spectrum(work.pair.shape)
        if reason is not None:
            return Found(spectra=PairSpectra({role: {"why": {"singular_values": reason}} for role in DELTAS}))
        with self._budget.reserve(self._spectra_bytes(pair)):
            source = self._source(pair)
            if not work.summed:
                words = {word: self.roles[word] for word in self.held(pair)}
                return Found(spectra=pair_spectra(pair, read_matrices(source, words, held=4 * pair.numel <= HELD)))
            gathered = self._gathered(pair)
            tally = self._tally(source, Stretch(pair, 0, pair.numel), gathered)
            return Found(tally, pair_spectra(pair, gathered_matrices(gathered, pair.shape), tally.energies()))

    def _tally(self, source: PairReader, task: Stretch, gathered: Gathered | None = None) -> Tally:
        """The sums of a stretch; what is gathered besides is of the whole pair."""
        pair, cut, words, first = task.pair, self.cut(task.pair), self.held(task.pair), self._first(task.pair)
        names = {word: self.alignment.label(pair, self.roles[word]) for word in words}
        tally = Tally(pair.numel, words, cut.count, pair.shape[-1] if cut.columns else 0)
        for start, stop, part in _steps(pair, cut, task.start, task.stop):
            found = source.read(start, stop)
            chunk = {word: found[self.roles[word]] for word in words}
            here = gathered and gathered.part(start, stop)
            if here:
                here.begin(chunk[first])
            tally.add(chunk, names, part, here.deltas if here else {})
        return tally

    def measured(self, pair: Aligned, tally: Tally, spectra: PairSpectra) -> Measured:
        """What the sums of a whole pair and its spectra say."""
        safetensors_dtypes = {
            word: self.alignment.tensor(pair, self.roles[word]).safetensors_dtype for word in self.held(pair)
        }
        cut, sums = self.cut(pair), tally.sums(safetensors_dtypes)
        deltas = {role: _joined(_parts(cut, tally.part_sums(role)), spectra.deltas.get(role, {})) for role in DELTAS}
        return Measured(sums, deltas, self._between(pair, sums, spectra.between))

    def _between(self, pair: Aligned, sums: Sums, spectra: Mapping[str, Any]) -> dict[str, Any]:
        """How the two spectra relate, with a null that shares what both deltas have of `adapted`."""
        found, plain = dict(spectra), sums.metrics().between
        if "subspace_null" not in found or not (sums.vl and sums.safety and plain and plain.cosine_null):
            return found
        from torch import from_numpy

        from vlsurgery.surgery.diff.spectra import directions_bytes
        from vlsurgery.surgery.diff.subspace_nulls import rounding_null, strangers_null

        rows, columns = pair.shape
        if are_kin(sums.vl, sums.safety):
            found["subspace_null"] = rounding_null(found["subspace_null"], (rows, columns), plain.cosine_null.mean)
        elif 4 * pair.numel * len(self.roles) > SHUFFLED:
            del found["subspace_null"]
            found["why"] = {"subspace_null": "adapted is no kin of the others, and the tensor is too large to be held"}
        else:
            with self._budget.reserve(2 * (directions_bytes(pair.shape) + 4 * pair.numel * len(self.roles))):
                source = self._source(pair)
                loaded = {word: source.load(role).copy() for word, role in self.roles.items()}
                tensors = {word: from_numpy(entries).view(pair.shape) for word, entries in loaded.items()}
                found["subspace_null"] = strangers_null(**tensors, seed=pair.numel)
        return found


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by name, and all reasons for those that are missing."""
    return {**first, **second, "why": {**first.get("why", {}), **second.get("why", {})}}


Metrics = TypeVar("Metrics", DeltaMetrics, BetweenMetrics)


def _with(metrics: Metrics, more: Mapping[str, Any]) -> Metrics:
    """Metrics with some more of them; reasons are added to those that are there."""
    return metrics.model_copy(update=_joined({"why": metrics.why}, more))


def _steps(pair: Aligned, cut: Cut, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """First and last entry of what is read in one go, and the part that the first belongs to."""
    if cut.columns or cut.kind == "whole":
        row = pair.shape[-1] if cut.columns else 1
        size = max(1, STRETCH // row) * row
        yield from ((place, min(place + size, stop), 0) for place in range(start, stop, size))
        return
    extent = pair.numel // cut.count
    if extent <= STRETCH:
        size = STRETCH // extent * extent
        yield from ((place, min(place + size, stop), place // extent) for place in range(start, stop, size))
        return
    for part in range(start // extent, stop // extent):
        first, last = part * extent, (part + 1) * extent
        yield from ((place, min(place + STRETCH, last), part) for place in range(first, last, STRETCH))


def _parts(cut: Cut, sums: Sequence[DeltaSums]) -> dict[str, Any]:
    """The metrics of heads or experts under their key, or the reason why there are none."""
    if cut.why is not None:
        return {"why": {"heads": cut.why}}
    if cut.kind == "whole" or not sums:
        return {}
    if cut.kind == "experts":
        return {"experts": [ExpertMetrics(expert=number, **_numbers(each)) for number, each in enumerate(sums)]}
    words: Sequence[tuple[str | None, int]] = cut.words or [(None, number) for number in range(cut.count)]
    heads = [
        HeadMetrics(part=word, head=number, **_numbers(each)) for (word, number), each in zip(words, sums, strict=True)
    ]
    return {"heads": heads}


def _numbers(sums: DeltaSums) -> dict[str, Any]:
    return {"relative": sums.relative, "cosine": sums.cosine, "rms": sums.rms}
