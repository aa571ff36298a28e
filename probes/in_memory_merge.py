"""A merge of a live model in memory: its blocks are moved toward other checkpoints and restored.

theta = adapted + sum over sources of c (source - adapted), with one coefficient c per block and source. A transplant
is the coefficient 1 on one block; the graft is the coefficient 1 toward base on every block.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.merge_parameters import (
    CHUNK_ENTRIES,
    MergeParameter,
    MergeValues,
    RowSpan,
    places,
    room_for_values,
)
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.head import head_of
from vlsurgery.probes.models.tables import (
    Watcher,
    embedded,
    folding_linear,
    is_plain_linear,
    watching_embedding,
    watching_head,
)
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.errors import AlignmentError

BlockCoefficients = Mapping[str, Mapping[str, float]]  # block -> source -> coefficient


class InMemoryMerge:
    """The adapted model in memory, whose blocks can be moved toward the sources.

    blocks: the text stack's blocks in order. sources: the roles to move toward. resident_bytes: how much of the
    checkpoints may stay in memory; the rest is read from their files when it is needed. None: what the device allows.
    A head that the checkpoint ties to the embedding is tied in the live model too, even where the file holds a copy
    of it.

    Raises AlignmentError where a site of the checkpoints has no parameter in the live model.
    """

    def __init__(
        self,
        chat: ChatModel,
        alignment: Alignment,
        sources: Sequence[str],
        like: str = "adapted",
        resident_bytes: int | None = None,
    ) -> None:
        self.chat = chat
        self.alignment, self.like = alignment, like
        self.sources = tuple(sources)
        if like in alignment.stale_heads:
            model: Any = chat.model
            model.get_output_embeddings().weight = model.get_input_embeddings().weight
        pairs = [(pair.site.block, pair) for pair in alignment.pairs if pair.site.tower == "text" and pair.site.block]
        found = places([pair for _, pair in pairs], alignment, like, chat)
        if lost := [pair.site.key for _, pair in pairs if pair.site not in found]:
            raise AlignmentError(
                f"{len(lost)} sites are laid out otherwise in the running model, so they can't be moved in it; the "
                f"first is {lost[0]}. Save the checkpoint from transformers with save_original_format=False."
            )
        self.blocks = tuple(sorted({block for block, _ in pairs}, key=_block_order))
        self.entries = [MergeParameter(*found[pair.site], pair, self.blocks.index(block)) for block, pair in pairs]
        needed = sum(alignment.tensor(pair, role).nbytes for _, pair in pairs for role in pair.parts)
        room = room_for_values(chat, needed) if resident_bytes is None else resident_bytes
        self._values = MergeValues(alignment, like, self.sources, room)
        self._current = self.zeros()
        self._stays = False
        self._slopes = torch.zeros(len(self.blocks), len(self.sources), dtype=torch.float64)

    def zeros(self) -> Tensor:
        """The adapted model's coefficients, [blocks, sources]."""
        return torch.zeros(len(self.blocks), len(self.sources))

    def layer_of(self, block: str) -> int | None:
        """The decoder block that holds all of a block's parameters; None for the embedding, the head and the like."""
        at = self.blocks.index(block)
        moved = {id(entry.parameter) for entry in self.entries if entry.block == at}
        for layer, module in enumerate(self.chat.blocks):
            if moved <= {id(parameter) for parameter in module.parameters()}:
                return layer
        return None

    def tensor(self, coefficients: BlockCoefficients) -> Tensor:
        """Coefficients as [blocks, sources], 0 where none is given. Raises ValueError for an unknown block."""
        if unknown := set(coefficients) - set(self.blocks):
            raise ValueError(f"no such block: {', '.join(sorted(unknown))}; there are {', '.join(self.blocks)}")
        rows = [[coefficients.get(block, {}).get(source, 0.0) for source in self.sources] for block in self.blocks]
        return torch.tensor(rows, dtype=torch.float32)

    def named(self, values: Tensor) -> dict[str, dict[str, float]]:
        """[blocks, sources] as block -> source -> coefficient."""
        return {
            block: {source: float(values[b, s]) for s, source in enumerate(self.sources)}
            for b, block in enumerate(self.blocks)
        }

    def everywhere(self, **coefficients: float) -> dict[str, dict[str, float]]:
        """The same coefficients on every block."""
        return {block: dict(coefficients) for block in self.blocks}

    def move(self, values: Tensor) -> None:
        """Set the live parameters to the merge with coefficients [blocks, sources]. `at` also restores them.

        Blocks whose coefficients stay are left alone. Merged values are float32, rounded once to the live dtype.
        """
        values = values.detach().to("cpu", torch.float32)
        changed = (values != self._current).any(1).tolist()
        table = values.tolist()
        self._current = torch.full_like(values, torch.nan)  # unknown, until all are set
        for entry in self.entries:
            if changed[entry.block]:
                self._set(entry, entry.parameter.data, table[entry.block])
        self._current = values.clone()

    def _set(self, entry: MergeParameter, whole: Tensor, row: Sequence[float]) -> None:
        """Fill the entry's part of `whole` with the merge at the coefficients `row`, one a source."""
        view = entry.of(whole)
        for rows in entry.chunks():
            self._values.merge_into(view[rows.start : rows.stop], entry, rows, row)

    def adapted_head(self) -> Iterator[Mapping[str, Tensor]]:
        """The parameters of the adapted model's head, wherever the live one was moved; some rows at a time, so that
        there is no second head in memory."""
        parameters = dict(head_of(self.chat).named_parameters())
        moved = self._current.any(1).tolist()
        entries = [entry for entry in self.entries if moved[entry.block]]
        changed = {name: [e for e in entries if e.parameter is value] for name, value in parameters.items()}
        count = max((len(value) for value in parameters.values()), default=0)
        step = count
        if all(entry.is_rows for parts in changed.values() for entry in parts):
            step = max(1, CHUNK_ENTRIES // max(value.numel() // len(value) for value in parameters.values()))
        for start in range(0, count, step):
            yield {name: self._adapted(value, changed[name], start, start + step) for name, value in parameters.items()}

    def _adapted(self, parameter: nn.Parameter, entries: Sequence[MergeParameter], start: int, stop: int) -> Tensor:
        """Rows of a parameter's adapted values. entries: its parts that were moved."""
        if not entries:
            return parameter.data[start:stop]
        if not all(entry.is_rows for entry in entries):
            whole = parameter.data.clone()
            for entry in entries:
                self._set(entry, whole, [0.0] * len(self.sources))
            return whole
        rows = parameter.data[start:stop].clone()
        for entry in entries:
            first = max(start, entry.first_row)
            end = min(start + len(rows), entry.first_row + entry.pair.shape[0])
            if first < end:
                span = RowSpan(first - entry.first_row, end - entry.first_row)
                rows[first - start : end - start].copy_(self._values.adapted(entry, span))
        return rows

    @contextmanager
    def at(self, coefficients: BlockCoefficients) -> Iterator[ChatModel]:
        """The model merged with these coefficients; the adapted weights are restored on exit, or by `staying`."""
        values = self.tensor(coefficients)
        try:
            self.move(values)
            yield self.chat
        finally:
            if not self._stays:
                self.move(self.zeros())

    @contextmanager
    def staying(self) -> Iterator[None]:
        """While open, `at` leaves the weights where they are, as one point follows another; they are restored on exit.

        Only for passes that read no weights but at a point.
        """
        before, self._stays = self._stays, True
        try:
            yield
        finally:
            self._stays = before
            if not before:
                self.move(self.zeros())

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """While open, backward passes add to `gradient`; on exit it is cleared and the weights are restored.

        Each parameter's gradient is folded into the coefficients' as soon as it is there, and freed: one is alive at
        a time. Those of embedding and head, which are as large as they are, are not made at all.
        """
        entries: dict[nn.Parameter, list[MergeParameter]] = {}
        for entry in self.entries:
            entries.setdefault(entry.parameter, []).append(entry)
        with ExitStack() as stack:
            self._fold_linears(entries, stack)
            for parameter in self._watched(entries, stack):
                del entries[parameter]
            for parameter, parts in entries.items():
                parameter.requires_grad_(True)
                stack.callback(parameter.register_post_accumulate_grad_hook(self._folding(parts)).remove)
            try:
                yield
            finally:
                for parameter in entries:
                    parameter.requires_grad_(False)
                    parameter.grad = None
                self._slopes.zero_()
                self.move(self.zeros())

    def _fold_linears(self, entries: Mapping[nn.Parameter, Sequence[MergeParameter]], stack: ExitStack) -> None:
        """Have linear layers fold what makes their weights' gradients, some rows at a time; the head is watched."""
        for module in self.chat.model.modules():
            if is_plain_linear(module) and module is not head_of(self.chat):
                weight: Any = module.weight
                parts = entries.get(weight, ())
                if parts and all(entry.is_rows for entry in parts):
                    stack.enter_context(folding_linear(module, self._folding_rows(parts)))

    def _watched(self, entries: Mapping[nn.Parameter, Sequence[MergeParameter]], stack: ExitStack) -> set[nn.Parameter]:
        """Watch embedding and head, where they are of the usual kind; the parameters that need no gradient then."""
        model: Any = self.chat.model
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        usual = isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear)
        tables = [module.weight for module in (embedding, head)] if usual else []
        found = {table for table in tables if table in entries and all(entry.is_rows for entry in entries[table])}
        if usual and embedding.weight in found:
            stack.enter_context(
                watching_embedding(embedding, self._folding_embedding(entries[embedding.weight], embedding))
            )
        if usual and head.weight in found:
            stack.enter_context(watching_head(head, self._folding_rows(entries[head.weight])))
        return found

    def _folding_embedding(self, entries: Sequence[MergeParameter], embedding: nn.Module) -> Watcher:
        """Adds <gradient, what the deltas' rows of the tokens make> to the slopes: the embedding is linear in them."""

        def fold(ids: Tensor, gradient: Tensor) -> None:
            tokens, slopes = ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
            for entry in entries:
                inside = (tokens >= entry.first_row) & (tokens < entry.first_row + entry.pair.shape[0])
                rows, own = (tokens[inside] - entry.first_row).unique(return_inverse=True)
                for source, delta in self.deltas_of_rows(entry, rows):
                    product = slopes[inside].float() * embedded(embedding, delta, own)
                    self._slopes[entry.block, source] += product.sum(dtype=torch.float64).cpu()

        return fold

    def _folding_rows(self, entries: Sequence[MergeParameter]) -> Watcher:
        """Adds <gradient, delta> to the slopes, of some rows of a linear layer's gradient at a time."""

        def fold(states: Tensor, gradient: Tensor) -> None:
            read, made = (each.reshape(-1, each.shape[-1]) for each in (states, gradient))
            for entry in entries:
                own = made[:, entry.first_row : entry.first_row + entry.pair.shape[0]]
                self._slopes[entry.block] += self._products(entry, _rows_of_product(own, read))

        return fold

    def _folding(self, entries: Sequence[MergeParameter]) -> Callable[[Tensor], None]:
        """A hook that adds <gradient, delta> of a parameter's parts to the slopes and frees the gradient."""

        def fold(parameter: Tensor) -> None:
            if parameter.grad is None:  # A layer that folds its own gives none.
                return
            gradient = parameter.grad.contiguous()
            parameter.grad = None
            for entry in entries:
                self._slopes[entry.block] += self._products(entry, _rows_of(entry.of(gradient)))

        return fold

    def _products(self, entry: MergeParameter, slope: Callable[[RowSpan], Tensor]) -> Tensor:
        """[sources] float64 inner products of a gradient and the deltas; 0 where a source lacks the site. slope: gives
        some rows of the gradient."""
        out = torch.zeros(len(self.sources), dtype=torch.float64)
        for rows in entry.chunks():
            out += self._values.products(slope(rows), entry, rows)
        return out

    def deltas(self, entry: MergeParameter, rows: RowSpan) -> Iterator[tuple[int, Tensor]]:
        """Source and source less adapted, float32, of some rows, for every source that has them."""
        for source, role in enumerate(self.sources):
            delta = self._values.delta(entry, role, rows)
            if delta is not None:
                yield source, delta

    def deltas_of_rows(self, entry: MergeParameter, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """As `deltas`, of rows anywhere: [n, width]. rows: [n] positions in the entry's part."""
        for source, role in enumerate(self.sources):
            delta = self._values.delta_of_rows(entry, role, rows)
            if delta is not None:
                yield source, delta

    def gradient(self) -> Tensor:
        """Gradient of the last backward passes by coefficient: [blocks, sources] float64 on the CPU. Clears it.

        By the chain rule d/dc = <d/dtheta, delta>: the inner product of each parameter's gradient and its delta.
        """
        out = self._slopes.clone()
        self._slopes.zero_()
        return out


def _rows_of(gradient: Tensor) -> Callable[[RowSpan], Tensor]:
    return lambda rows: gradient[rows.start : rows.stop]


def _rows_of_product(left: Tensor, right: Tensor) -> Callable[[RowSpan], Tensor]:
    """Rows of left^T right."""
    return lambda rows: left[:, rows.start : rows.stop].T @ right


def _block_order(block: str) -> tuple[int, int, str]:
    """Sort key: embed first, then layer by layer with attention before MLP, then head and norm."""
    layer, _, part = block.partition(".")
    if layer.isdigit():
        return 1, int(layer), part
    return (0 if block == "embed" else 2), 0, block
