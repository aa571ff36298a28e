"""The parameters of a live merge, each with the checkpoints' values of it, read a chunk at a time.

Values come from the files when they are needed, or stay in memory where there is room; both give the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vlsurgery.probes.merge_arithmetic import delta_products, merge_into
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.saved_names import saved_views
from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.architecture.layouts import EMBED, TensorView, locate
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import CheckpointError

NEW_ROWS = Site("text", None, "embed.new")
CHUNK_ENTRIES = 1 << 20  # of a tensor, computed at a time in float32
ALL_ON_CPU = 2**30  # checkpoints that take no more stay in memory whole
SOME_ON_CPU = 256 * 2**20  # of larger ones: the files' pages are in memory already, and reading them is copying
RESIDENT_SHARE = 0.5  # of what is free on another device, or of what --memory leaves


class RowSpan(NamedTuple):
    """Rows of a tensor along its first dimension, from `start` to before `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class MergeParameter:
    """One parameter, and the view of it that the checkpoints share.

    pair: the view's tensors in the checkpoints. block: position of its block.
    """

    parameter: nn.Parameter
    part: TensorView
    pair: Aligned
    block: int

    def of(self, whole: Tensor) -> Tensor:
        """The shared view of a tensor that is laid out as the parameter is; a scalar as a vector of one."""
        first, size = self.part.span(whole.shape)
        view: Tensor = self.part.view(whole.view(-1)[first : first + size], whole.shape)
        return view if view.dim() else view[None]

    @property
    def is_rows(self) -> bool:
        """Whether the view is whole rows of a matrix."""
        cut = self.part.slices is None or self.part.slices[1:] == (slice(0, self.parameter.shape[-1]),)
        return self.parameter.dim() == 2 and cut and not self.part.transposed

    @property
    def first_row(self) -> int:
        """The parameter's row with which a view of whole rows begins."""
        return self.part.slices[0].start or 0 if self.part.slices else 0

    def chunks(self) -> Iterator[RowSpan]:
        """Ranges of rows that cover the view, of about CHUNK_ENTRIES each."""
        count = self.pair.shape[0] if self.pair.shape else 1
        step = max(1, CHUNK_ENTRIES // max(1, self.pair.numel // count))
        for start in range(0, count, step):
            yield RowSpan(start, min(start + step, count))


class MergeValues:
    """What each checkpoint holds at the merged parameters.

    like: the role of the live model. resident_bytes: how many bytes may stay in memory, on the model's device.
    """

    def __init__(self, alignment: Alignment, like: str, sources: Sequence[str], resident_bytes: int) -> None:
        self._alignment = alignment
        self._like = like
        self._sources = tuple(sources)
        self._room = resident_bytes
        self._resident: dict[tuple[Site, str], Tensor] = {}

    def merge_into(self, out: Tensor, entry: MergeParameter, rows: RowSpan, coefficients: Sequence[float]) -> None:
        """Fill `out` with rows of the merge at the coefficients, one a source; those of absent sites count nothing.

        Raises CheckpointError for NaN and infinite values.
        """
        used = [(s, c) for s, c in zip(self._sources, coefficients, strict=True) if c and s in entry.pair.parts]
        sources = [self._read(entry, role, rows) for role, _ in used]
        if not merge_into(out, self._read(entry, self._like, rows), sources, [value for _, value in used]):
            label = self._alignment.label(entry.pair, used[0][0])
            raise CheckpointError(
                f"{label}: merging it into {self._like} gives NaN or infinite values. One of the two checkpoints is "
                "broken; get it again."
            )

    def products(self, gradient: Tensor, entry: MergeParameter, rows: RowSpan) -> Tensor:
        """[sources] float64: <gradient, source less adapted> over rows; 0 where a source lacks the site."""
        there = [at for at, role in enumerate(self._sources) if role in entry.pair.parts]
        sources = [self._read(entry, self._sources[at], rows) for at in there]
        out = torch.zeros(len(self._sources), dtype=torch.float64)
        out[there] = delta_products(gradient, self._read(entry, self._like, rows), sources)
        return out

    def adapted(self, entry: MergeParameter, rows: RowSpan) -> Tensor:
        """Rows of the live model's own checkpoint as they are stored, on the parameter's device. Not to be changed."""
        return self._read(entry, self._like, rows)

    def delta(self, entry: MergeParameter, role: str, rows: RowSpan) -> Tensor | None:
        """Rows of a source less adapted, float32; None where the source lacks the site."""
        if role not in entry.pair.parts:
            return None
        return self._read(entry, role, rows).float() - self._read(entry, self._like, rows).float()

    def delta_of_rows(self, entry: MergeParameter, role: str, rows: Tensor) -> Tensor | None:
        """As `delta`, of rows anywhere: [n, width]. rows: [n] positions in the view."""
        if role not in entry.pair.parts:
            return None
        return self._picked(entry, role, rows).float() - self._picked(entry, self._like, rows).float()

    def _picked(self, entry: MergeParameter, role: str, rows: Tensor) -> Tensor:
        held = self._held(entry, role)
        if held is not None:
            return held[rows]
        parts = [self._read(entry, role, RowSpan(row, row + 1)) for row in rows.tolist()]
        return torch.cat(parts) if parts else self._read(entry, role, RowSpan(0, 0))

    def _read(self, entry: MergeParameter, role: str, rows: RowSpan) -> Tensor:
        """Rows as they are stored: what stays in memory itself, or fresh memory."""
        held = self._held(entry, role)
        if held is not None:
            return held[rows.start : rows.stop]
        pair = entry.pair
        width = pair.numel // max(1, pair.shape[0] if pair.shape else 1)
        flat = self._alignment.read(pair, role, rows.start * width, rows.stop * width)
        return flat.to(entry.parameter.device).reshape(rows.stop - rows.start, *pair.shape[1:])

    def _held(self, entry: MergeParameter, role: str) -> Tensor | None:
        """The whole tensor where it stays in memory; it is taken in where there is room."""
        key = entry.pair.site, role
        if key not in self._resident:
            size = entry.pair.numel * self._alignment.tensor(entry.pair, role).dtype.itemsize
            if size > self._room:
                return None
            self._room -= size
            value = self._alignment.load(entry.pair, role).to(entry.parameter.device)
            self._resident[key] = value if value.dim() else value[None]
        return self._resident[key]


def room_for_values(chat: ChatModel, needed: int) -> int:
    """Bytes of checkpoints that may stay in memory beside a model. needed: bytes of all that is merged."""
    if chat.memory is not None:
        weights = sum(weight.nbytes for weight in chat.model.parameters())
        return int(max(0, chat.memory - weights) * RESIDENT_SHARE)
    if chat.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(chat.device)
        return int(free * RESIDENT_SHARE)
    return needed if needed <= ALL_ON_CPU else SOME_ON_CPU


def live_parts(chat: ChatModel) -> dict[Site, tuple[nn.Parameter, TensorView]]:
    """Site -> parameter and view of it, for every site of the live model and for the parts of fused ones."""
    parameters = _stored(chat.model)
    config = chat.model.config.to_dict()  # type: ignore[operator,union-attr]
    first = next(name for name, module in chat.model.named_modules() if module is chat.blocks[0])
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    found = locate(shapes, config, first.rpartition(".")[0])
    return {site: (parameters[part.name], part) for site, part in found.items()}


def place(
    pair: Aligned, alignment: Alignment, like: str, live: Mapping[Site, tuple[nn.Parameter, TensorView]]
) -> tuple[nn.Parameter, TensorView] | None:
    """The parameter at a pair's site and the shared view of it; None where it is laid out otherwise."""
    joined = _in_joined_table(pair, alignment, like, live)
    if joined is not None:
        return joined
    if pair.site not in live:
        return None
    parameter, part = live[pair.site]
    if part.shape(tuple(parameter.shape)) == pair.shape:
        return parameter, part
    if tuple(parameter.shape) == alignment.tensor(pair, like).shape:  # a vocabulary that grew: its first rows
        return parameter, pair.parts[like]
    return None


def places(
    pairs: Sequence[Aligned], alignment: Alignment, like: str, chat: ChatModel
) -> dict[Site, tuple[nn.Parameter, TensorView]]:
    """Site -> parameter and the shared view of it, for the pairs that have a place in the live model: by their sites,
    else by what transformers says became of the file's tensor."""
    live = live_parts(chat)
    found = {pair.site: held for pair in pairs if (held := place(pair, alignment, like, live))}
    others = [pair for pair in pairs if pair.site not in found and pair.parts[like].slices is None]
    if not others:
        return found
    views, stored = saved_views(chat.model), _stored(chat.model)
    for pair in others:
        part = pair.parts[like]
        view = views.get(part.name)
        if view is not None:
            view = view._replace(transposed=view.transposed != part.transposed)
            if view.shape(tuple(stored[view.name].shape)) == pair.shape:
                found[pair.site] = stored[view.name], view
    return found


def _stored(model: nn.Module) -> dict[str, Any]:
    """Parameters by name, and the buffers that checkpoints hold: Gemma 4 scales its layers by some."""
    held = model.state_dict()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in held}
    return {**dict(model.named_parameters()), **buffers}


def _in_joined_table(
    pair: Aligned, alignment: Alignment, like: str, live: Mapping[Site, tuple[nn.Parameter, TensorView]]
) -> tuple[nn.Parameter, TensorView] | None:
    """The place of one of two tables that the file keeps apart, of old and of new tokens, in the live one that holds
    both, the new ones behind (Molmo 2); None where that is not so."""
    if pair.site not in (EMBED, NEW_ROWS) or EMBED not in live:
        return None
    tables = {each.site: alignment.tensor(each, like) for each in alignment.pairs if each.site in (EMBED, NEW_ROWS)}
    if len(tables) != 2:
        return None
    parameter, part = live[EMBED]
    old, new = (tables[site].shape for site in (EMBED, NEW_ROWS))
    if tuple(parameter.shape) != (old[0] + new[0], *old[1:]):
        return None
    start = old[0] if pair.site == NEW_ROWS else 0
    cut = (slice(start, start + pair.shape[0]), *(slice(0, size) for size in pair.shape[1:]))
    return parameter, TensorView(part.name, cut)
