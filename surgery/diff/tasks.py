"""The tasks that measuring one pair divides into, and the metrics that their results give."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.diff.accumulator import Accumulator
from vlsurgery.surgery.diff.heads import HeadLayout, head_layout
from vlsurgery.surgery.diff.metrics import DELTAS, DeltaSums, PairStatistics, deltas_of
from vlsurgery.surgery.diff.reader import FLOAT32, READ_SIZE, PairReader, is_contiguous
from vlsurgery.surgery.diff.rounding_noise import are_related
from vlsurgery.surgery.results import ExpertMetrics, HeadMetrics, PairMetrics
from vlsurgery.surgery.runtime.arrays import upcast
from vlsurgery.surgery.runtime.memory_budget import MemoryBudget
from vlsurgery.surgery.runtime.scratch import ScratchBuffers

# Bytes up to which all matrices of a pair are in memory at once, filled while the pair is summed up.
MAX_INPUT_BYTES: Final = 120 << 20
# Bytes up to which one matrix at a time is in memory, in float32; a larger one is read again for every pass.
MAX_RESIDENT_BYTES: Final = 288 << 20
# Bytes up to which a pair is loaded in float32 for the null of unrelated models.
MAX_SHUFFLED_BYTES: Final = 160 << 20
# Bytes that the spectra of all threads take at once.
SPECTRA_BUDGET: Final = 400 << 20

# Entries that one task sums up; a larger pair is divided among threads.
TASK_SIZE: Final = 1 << 23


class SumTask(NamedTuple):
    """Sum up a range of one pair's entries."""

    pair: Aligned
    start: int
    stop: int


class SpectrumTask(NamedTuple):
    """Find the spectra of a pair, and in the same pass its sums where `with_sums` says so."""

    pair: Aligned
    with_sums: bool


Task = SumTask | SpectrumTask

# "vl", "safety" or "between" -> what spectra tell of it, by metric.
SpectralMetrics = Mapping[str, Mapping[str, Any]]


class DiffRunner:
    """Measures the pairs of an alignment. roles: base, adapted and safety -> the alignment's names for them."""

    def __init__(self, alignment: Alignment, roles: Mapping[str, str]) -> None:
        self.alignment, self.roles = alignment, dict(roles)
        self._scratch = ScratchBuffers()
        self._budget = MemoryBudget(SPECTRA_BUDGET)

    def tasks(self, pair: Aligned, spectra: bool) -> list[Task]:
        """What there is to do on a pair: one task for sums and spectra together where the matrices fit in memory; else
        tasks for sums, divided between heads, experts or rows, and then one for spectra if these are wanted."""
        if spectra and self._fits(pair):
            return [SpectrumTask(pair, with_sums=True)]
        layout, size = self._layout(pair), pair.numel
        if pair.numel and all(is_contiguous(self.alignment, pair, name) for name in self._roles(pair).values()):
            unit = layout.unit(pair.shape)
            size = max(1, TASK_SIZE // unit) * unit
        starts = range(0, pair.numel, size or 1) or [0]
        sums = [SumTask(pair, start, min(start + size, pair.numel)) for start in starts]
        return [*sums, SpectrumTask(pair, with_sums=False)] if spectra else [*sums]

    def run(self, task: Task) -> tuple[Accumulator | None, SpectralMetrics]:
        """Do one task, in any thread: the sums that it took, and what spectra tell."""
        if isinstance(task, SumTask):
            return self._accumulate(self._reader(task.pair), task), {}
        from vlsurgery.surgery.diff import pair_spectra

        pair, reason = task.pair, pair_spectra.without_spectrum(task.pair.shape)
        if reason is not None:
            return None, {delta: {"why": {"singular_values": reason}} for delta in DELTAS}
        with self._budget.reserve(self._spectra_bytes(pair)):
            reader = self._reader(pair)
            if not task.with_sums:
                in_memory = 4 * pair.numel <= MAX_RESIDENT_BYTES
                return None, pair_spectra.pair_spectra(pair, pair_spectra.read_matrices(reader, in_memory))
            inputs = {name: self._scratch.vector(name, pair.numel, dtype) for name, dtype in self._dtypes(pair).items()}
            sums = self._accumulate(reader, SumTask(pair, 0, pair.numel), inputs)
            return sums, pair_spectra.pair_spectra(
                pair, pair_spectra.loaded_matrices(inputs, pair.shape), sums.energies()
            )

    def is_large(self, pair: Aligned) -> bool:
        """Whether a pair's spectra take so much memory that those of another such pair must wait."""
        return self._spectra_bytes(pair) > SPECTRA_BUDGET // 2

    def measured(
        self, pair: Aligned, sums: Accumulator, spectral: SpectralMetrics
    ) -> tuple[PairStatistics, PairMetrics]:
        """The statistics and all metrics of a pair, from the sums of the whole pair and what its spectra tell."""
        dtypes = {role: self.alignment.tensor(pair, name).safetensors_dtype for role, name in self._roles(pair).items()}
        layout, statistics = self._layout(pair), sums.statistics(dtypes)
        plain = statistics.metrics()
        more = {
            delta: _joined(_part_metrics(layout, sums.part_sums(delta)), spectral.get(delta, {}))
            for delta in sums.deltas
        }
        if plain.between:
            more["between"] = self._between(pair, statistics, spectral.get("between", {}))
        updates = {}
        for name, metrics in more.items():
            found = getattr(plain, name)
            updates[name] = found.model_copy(update=_joined({"why": found.why}, metrics))
        return statistics, plain.model_copy(update=updates)

    def _roles(self, pair: Aligned) -> dict[str, str]:
        """Which of base, adapted and safety a pair has -> the alignment's names for them."""
        return {role: name for role, name in self.roles.items() if name in pair.parts}

    def _layout(self, pair: Aligned) -> HeadLayout:
        """How a pair divides into heads or experts, by the config of the base, or of `adapted` where the base lacks
        the tensor."""
        name = next(iter(self._roles(pair).values()))
        config = self.alignment.checkpoints[name].config
        return head_layout(pair.site, pair.shape, pair.parts[self.alignment.like].name, config)

    def _reader(self, pair: Aligned) -> PairReader:
        return PairReader(self.alignment, pair, self._roles(pair), self._scratch)

    def _spectra_bytes(self, pair: Aligned) -> int:
        """Memory that the spectra of a pair take."""
        from vlsurgery.surgery.diff import pair_spectra

        if pair_spectra.without_spectrum(pair.shape) is not None:
            return 0
        matrix = self._input_bytes(pair) if self._fits(pair) else 4 * pair.numel
        return pair_spectra.directions_bytes(pair.shape) + (matrix if matrix <= MAX_RESIDENT_BYTES else 0)

    def _dtypes(self, pair: Aligned) -> dict[str, np.dtype]:
        """The matrices that a pair's spectra are of -> their dtypes in memory."""
        from vlsurgery.surgery.diff.pair_spectra import start_dtype

        roles = self._roles(pair)
        stored = self.alignment.tensor(pair, next(iter(roles.values()))).array_dtype
        return {"start": start_dtype(stored, pair.shape)} | dict.fromkeys(deltas_of(roles), FLOAT32)

    def _input_bytes(self, pair: Aligned) -> int:
        return pair.numel * sum(dtype.itemsize for dtype in self._dtypes(pair).values())

    def _fits(self, pair: Aligned) -> bool:
        """Whether a pair has spectra, and all matrices that they are of fit in memory."""
        from vlsurgery.surgery.diff.pair_spectra import without_spectrum

        return without_spectrum(pair.shape) is None and self._input_bytes(pair) <= MAX_INPUT_BYTES

    def _accumulate(
        self, reader: PairReader, task: SumTask, inputs: Mapping[str, np.ndarray] | None = None
    ) -> Accumulator:
        """The sums of a range of a pair. inputs: memory for the matrices of a whole pair, filled on the way."""
        pair, layout = task.pair, self._layout(task.pair)
        names = {role: self.alignment.label(pair, name) for role, name in reader.roles.items()}
        sums = Accumulator(pair.numel, reader.roles, layout.count, pair.shape[-1] if layout.columns else 0)
        for start, stop, part in _read_ranges(pair, layout, task.start, task.stop):
            chunk = {role: reader.read(role, start, stop) for role in reader.roles}
            here = {name: vector[start:stop] for name, vector in (inputs or {}).items()}
            if here:
                first = next(iter(chunk.values()))
                if here["start"].dtype == first.dtype:
                    here["start"][:] = first
                else:
                    upcast(first, here["start"])
            sums.add(chunk, names, part, here)
        return sums

    def _between(self, pair: Aligned, statistics: PairStatistics, spectral: Mapping[str, Any]) -> dict[str, Any]:
        """How the two spectra relate, with a null for deltas that share `adapted`."""
        found, plain = dict(spectral), statistics.metrics().between
        if "subspace_null" not in found or not (statistics.vl and statistics.safety and plain and plain.cosine_null):
            return found
        from torch import from_numpy

        from vlsurgery.surgery.diff.pair_spectra import directions_bytes
        from vlsurgery.surgery.diff.subspace_nulls import rounding_null, unrelated_null

        rows, columns = pair.shape
        nbytes = 4 * pair.numel * len(self.roles)
        if are_related(statistics.vl, statistics.safety):
            found["subspace_null"] = rounding_null(found["subspace_null"], (rows, columns), plain.cosine_null.mean)
        elif nbytes > MAX_SHUFFLED_BYTES:
            del found["subspace_null"]
            found["why"] = {"subspace_null": "adapted is no kin of the others, and the tensor is too large to be held"}
        else:
            with self._budget.reserve(2 * (directions_bytes(pair.shape) + nbytes)):
                reader = self._reader(pair)
                tensors = {role: from_numpy(reader.load(role).copy()).view(pair.shape) for role in reader.roles}
                found["subspace_null"] = unrelated_null(**tensors, seed=pair.numel)
        return found


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by name from both, and the reasons for missing ones from both."""
    return {**first, **second, "why": {**first.get("why", {}), **second.get("why", {})}}


def _read_ranges(pair: Aligned, layout: HeadLayout, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """First and last entry of what is read at a time, and the part that the first entry belongs to."""
    unit, by_rows = layout.unit(pair.shape), layout.kind != "whole" and not layout.columns
    if by_rows and unit > READ_SIZE:
        for part in range(start // unit, stop // unit):
            first, last = part * unit, (part + 1) * unit
            yield from ((place, min(place + READ_SIZE, last), part) for place in range(first, last, READ_SIZE))
        return
    size = max(1, READ_SIZE // unit) * unit
    yield from ((place, min(place + size, stop), place // unit if by_rows else 0) for place in range(start, stop, size))


def _part_metrics(layout: HeadLayout, sums: Sequence[DeltaSums]) -> dict[str, Any]:
    """The metrics of heads or experts under their key, or the reason why there are none."""
    if layout.why is not None:
        return {"why": {"heads": layout.why}}
    if layout.kind == "whole":
        return {}
    numbers = [{"relative": part.relative, "cosine": part.cosine, "rms": part.rms} for part in sums]
    if layout.kind == "experts":
        return {"experts": [ExpertMetrics(expert=number, **each) for number, each in enumerate(numbers)]}
    heads: Sequence[tuple[str | None, int]] = layout.heads or [(None, number) for number in range(layout.count)]
    return {
        "heads": [HeadMetrics(part=word, head=head, **each) for (word, head), each in zip(heads, numbers, strict=True)]
    }
