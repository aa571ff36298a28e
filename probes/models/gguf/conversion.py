"""Converting a GGUF file: shards made by workers or in this process; config, tokenizer and template beside them."""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vlsurgery.probes.models.gguf.layout import MAX_SHARD_BYTES, Layout, laid_out
from vlsurgery.probes.models.gguf.shard_maker import GGUFShardMaker, check_stamp, converters, made_shard, stamp_of
from vlsurgery.probes.models.gguf.source import GGUFModel, open_gguf, tokenizer_of
from vlsurgery.surgery.checkpoint.shards import INDEX
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime.engine import Engine, InProcess, SetUp
from vlsurgery.surgery.runtime.progress import Notify, Progress, no_notify, no_progress
from vlsurgery.surgery.runtime.worker_pool import worker_pool
from vlsurgery.surgery.writer.checksums import SUMS, sums_text
from vlsurgery.surgery.writer.filling import FilledShard, fill_by
from vlsurgery.surgery.writer.output_directory import check_target, target
from vlsurgery.surgery.writer.resuming import finish, resume, write_file
from vlsurgery.surgery.writer.shard_plan import CONFIG

UNQUANTISED = {"F64", "F32", "F16", "BF16"}  # tensor types that are plain floats


@dataclass(frozen=True)
class Conversion:
    """What a conversion read and wrote.

    stored: GGUF's name of a tensor type -> weights of it. bits: of the file a weight. rounding: the relative error that
    rounding to `dtype` adds, |written - dequantised| / |dequantised| over all weights.
    """

    file: Path
    out: Path
    architecture: str
    parameters: int
    stored: Mapping[str, int]
    bits: float
    dtype: str
    rounding: float

    def sentence(self) -> str:
        """What was written, and what precision was lost."""
        kinds = ", ".join(f"{_share(count / self.parameters)} {kind}" for kind, count in self.stored.items())
        told = f"{self.architecture} of {self.parameters:,} weights, stored in {self.bits:.2f} bits each ({kinds})"
        lost = (
            f"Rounding adds a relative error of {self.rounding:.1e}." if self.rounding else "Nothing is lost by that."
        )
        if not set(self.stored) <= UNQUANTISED:
            lost += (
                " What quantisation took from the original weights can't be given back: compare it only with "
                "checkpoints that were made from it."
            )
        return f"{self.out}: {told}, written in {self.dtype}. {lost}"


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else "under 1%"


@dataclass(frozen=True)
class PlannedConversion:
    """A conversion as far as the file's header tells. stamp: of the file. model: without weights."""

    stamp: tuple[int, int]
    model: GGUFModel
    layout: Layout
    dtype: str
    max_shard_bytes: int

    @property
    def bytes_read(self) -> int:
        """Bytes of the file's tensors."""
        return sum(int(tensor.n_bytes) for tensor in self.model.tensors)

    def maker(self, is_here: bool) -> Callable[[Path], SetUp[str, FilledShard]]:
        """What gives the workers' set-up for a directory. is_here: whether this process is the worker."""
        if is_here:
            return lambda folder: lambda: partial(made_shard, self.model, self.layout, self.dtype, folder)
        file, header = self.model.file.absolute(), self.model.header
        return partial(GGUFShardMaker, file, header, self.dtype, self.max_shard_bytes, self.stamp, converters())


def planned(
    file: Path, out: Path, dtype: str = "bfloat16", max_shard_bytes: int = MAX_SHARD_BYTES
) -> PlannedConversion:
    """Open a GGUF file and plan what is written; nothing is written. Raises as `convert`."""
    if out.exists():
        raise TargetError(f"{out}: is there already. Give a new directory with -o.")
    stamp, model = stamp_of(file), open_gguf(file)
    return PlannedConversion(stamp, model, laid_out(model, dtype, max_shard_bytes), dtype, max_shard_bytes)


def convert(
    file: Path,
    out: Path,
    dtype: str = "bfloat16",
    progress: Progress = no_progress,
    note: Notify = no_notify,
    engine: Engine | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Conversion:
    """Write the model of a GGUF file to a new directory, as transformers would save it; a few pieces are in memory at
    a time.

    dtype: of the written floats: float32, bfloat16 or float16. note: is told what an earlier run left. engine: whose
    workers make a shard at a time; None: they are made here. The bytes are the same. max_shard_bytes: of a shard, but
    for one whose only parameter is larger.

    Raises CheckpointError for a file that is no GGUF or that transformers can't read, and for values that are not
    finite; TargetError for a directory that is there already or can't be written. `out` is complete or absent; when the
    program is killed, the same call goes on behind the last finished shard.
    """
    plan = planned(file, out, dtype, max_shard_bytes)
    texts = _texts(plan)
    files = {*texts, *(shard.file for shard in plan.layout.shards), SUMS}
    needed = plan.layout.nbytes + sum(map(len, texts.values()))
    check_target(out, [], needed)
    with target(out, _digest(plan, file, texts), files, needed, note) as (folder, journal):
        with worker_pool() as pool:
            rest = resume(plan.layout.shards, folder, journal, pool, progress, note)
        done = partial(finish, folder, journal, partial(check_stamp, file, plan.stamp))
        fill_by(engine or InProcess(), plan.maker(is_here=engine is None), progress, rest, folder, done)
        written = {name: write_file(folder / name, [text]) for name, text in texts.items() if name != CONFIG}
        digests = journal.finished | written | {CONFIG: hashlib.sha256(texts[CONFIG]).hexdigest()}
        write_file(folder / SUMS, [sums_text(digests).encode()])
        write_file(folder / CONFIG, [texts[CONFIG]])  # Last: without it, a directory is not taken for a checkpoint.
        sums = [journal.sums[shard.file] for shard in plan.layout.shards]
    return _told(out, plan, sums)


def _texts(plan: PlannedConversion) -> dict[str, bytes]:
    """Name -> content of the files beside the shards, as transformers writes them."""
    model, config = plan.model.model, plan.model.model.config
    config.dtype, config.architectures = plan.dtype, [type(model).__name__]
    _shorten_floats(config)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer_of(plan.model.file).save_pretrained(folder)
        config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found if plan.layout.index is None else found | {INDEX: plan.layout.index.encode()}


def _digest(plan: PlannedConversion, file: Path, texts: Mapping[str, bytes]) -> str:
    """The digest of everything that must be equal for a run to resume another one."""
    layout = [[shard.file, hashlib.sha256(shard.header).hexdigest()] for shard in plan.layout.shards]
    beside = {name: hashlib.sha256(text).hexdigest() for name, text in sorted(texts.items())}
    programs = [version("vlsurgery"), version("torch"), converters()]
    order = [programs, str(file.absolute()), plan.stamp, layout, beside]
    return hashlib.sha256(json.dumps(order).encode()).hexdigest()


def _told(out: Path, plan: PlannedConversion, sums: list[tuple[float, ...]]) -> Conversion:
    counts: Counter[str] = Counter()
    for tensor in plan.model.tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    lost, whole = (sum(each) for each in zip(*sums, strict=True))
    return Conversion(
        file=plan.model.file,
        out=out,
        architecture=type(plan.model.model).__name__,
        parameters=sum(counts.values()),
        stored=dict(counts.most_common()),
        bits=8 * plan.bytes_read / sum(counts.values()),
        dtype=plan.dtype,
        rounding=(lost / whole) ** 0.5 if whole else 0.0,
    )


def _shorten_floats(config: Any) -> None:
    """Numbers as they were written before GGUF stored them in float32: 1e-05 in place of 9.999999747378752e-06."""
    for name, value in vars(config).items():
        if isinstance(value, float) and float(np.float32(value)) == value:
            setattr(config, name, float(str(np.float32(value))))
