"""A merge of a live model in memory: its blocks are moved toward other checkpoints and restored.

theta = adapted + sum over sources of c (source - adapted), with one coefficient c per block and source. A transplant
is the coefficient 1 on one block; the graft is the coefficient 1 toward base on every block.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models import ChatModel
from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.architecture.layouts import TensorView, locate
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import AlignmentError

BlockCoefficients = Mapping[str, Mapping[str, float]]  # block -> source -> coefficient


@dataclass(frozen=True)
class _MergeParameter:
    """One parameter, and the view of it that the checkpoints share.

    adapted, sources: that view of the adapted checkpoint and of each source, in the stored dtype on the CPU, so that
        the device holds one of them at a time. A source that lacks the site has None.
    """

    parameter: nn.Parameter
    part: TensorView
    adapted: Tensor
    sources: tuple[Tensor | None, ...]
    block: int

    def of(self, whole: Tensor) -> Tensor:
        """The shared view of a tensor that is laid out as the parameter is."""
        first, size = self.part.span(whole.shape)
        return self.part.view(whole.view(-1)[first : first + size], whole.shape)

    def delta(self, source: int) -> Tensor:
        """source - adapted, float32, on the device; 0 where the source lacks the site."""
        other = self.sources[source]
        device = self.parameter.device
        adapted = self.adapted.to(device, torch.float32)
        return torch.zeros_like(adapted) if other is None else other.to(device, torch.float32) - adapted


class InMemoryMerge:
    """The adapted model in memory, whose blocks can be moved toward the sources.

    blocks: the text stack's blocks in order. sources: the roles to move toward.
    Holds a copy of the adapted text stack and of each source's, on the CPU. A head that the checkpoint ties to the
    embedding is tied in the live model too, even where the file holds a copy of it.

    Raises AlignmentError where a site of the checkpoints has no parameter in the live model.
    """

    def __init__(self, chat: ChatModel, alignment: Alignment, sources: Sequence[str], like: str = "adapted") -> None:
        self.chat = chat
        self.sources = tuple(sources)
        if like in alignment.stale_heads:
            model: Any = chat.model
            model.get_output_embeddings().weight = model.get_input_embeddings().weight
        live = _live_parts(chat)
        pairs = [(pair.site.block, pair) for pair in alignment.pairs if pair.site.tower == "text" and pair.site.block]
        places = {pair.site: place for _, pair in pairs if (place := _place(pair, alignment, like, live))}
        if lost := [pair.site.key for _, pair in pairs if pair.site not in places]:
            raise AlignmentError(
                f"{len(lost)} sites are laid out otherwise in the running model, so they can't be moved in it; the "
                f"first is {lost[0]}. Save the checkpoint from transformers with save_original_format=False."
            )
        self.blocks = tuple(sorted({block for block, _ in pairs}, key=_block_order))
        self._entries = []
        for block, pair in pairs:
            others = tuple(alignment.load(pair, s) if s in pair.parts else None for s in self.sources)
            parameter, part = places[pair.site]
            adapted = alignment.load(pair, like)
            self._entries.append(_MergeParameter(parameter, part, adapted, others, self.blocks.index(block)))

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
        """Set the live parameters to the merge with coefficients [blocks, sources]. `at` also restores them."""
        table = values.tolist()
        with torch.no_grad():
            for entry in self._entries:
                merged = entry.adapted.to(entry.parameter.device, torch.float32, copy=True)
                for source, coefficient in enumerate(table[entry.block]):
                    if coefficient:
                        merged.add_(entry.delta(source), alpha=coefficient)
                entry.of(entry.parameter).copy_(merged)

    @contextmanager
    def at(self, coefficients: BlockCoefficients) -> Iterator[ChatModel]:
        """The model merged with these coefficients; the adapted weights are restored on exit."""
        self.move(self.tensor(coefficients))
        try:
            yield self.chat
        finally:
            self.move(torch.zeros(len(self.blocks), len(self.sources)))

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """While open, the merged parameters take gradients; on exit gradients are cleared and weights restored."""
        parameters = {id(entry.parameter): entry.parameter for entry in self._entries}
        try:
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in parameters.values():
                parameter.requires_grad_(False)
                parameter.grad = None
            self.move(torch.zeros(len(self.blocks), len(self.sources)))

    def gradient(self) -> Tensor:
        """Gradient of the last backward passes by coefficient: [blocks, sources] float64 on the CPU.

        By the chain rule d/dc = <d/dtheta, delta>: the inner product of each parameter's gradient and its delta.
        Clears the parameters' gradients.
        """
        out = torch.zeros(len(self.blocks), len(self.sources), dtype=torch.float64)
        for entry in self._entries:
            if entry.parameter.grad is None:
                continue
            slope = entry.of(entry.parameter.grad.contiguous()).float()
            for source in range(len(self.sources)):
                out[entry.block, source] += (slope * entry.delta(source)).sum(dtype=torch.float64).cpu()
        for entry in self._entries:
            entry.parameter.grad = None
        return out


def _live_parts(chat: ChatModel) -> dict[Site, tuple[nn.Parameter, TensorView]]:
    """Site -> parameter and view of it, for every site of the live model and for the parts of fused ones."""
    parameters = dict(chat.model.named_parameters())
    config = chat.model.config.to_dict()  # type: ignore[operator,union-attr]
    found = locate({name: tuple(parameter.shape) for name, parameter in parameters.items()}, config)
    return {site: (parameters[part.name], part) for site, part in found.items()}


def _place(
    pair: Aligned, alignment: Alignment, like: str, live: Mapping[Site, tuple[nn.Parameter, TensorView]]
) -> tuple[nn.Parameter, TensorView] | None:
    """The parameter at a pair's site and the shared view of it; None where it is laid out otherwise."""
    if pair.site not in live:
        return None
    parameter, part = live[pair.site]
    if part.shape(tuple(parameter.shape)) == pair.shape:
        return parameter, part
    if tuple(parameter.shape) == alignment.tensor(pair, like).shape:  # a vocabulary that grew: its first rows
        return parameter, pair.parts[like]
    return None


def _block_order(block: str) -> tuple[int, int, str]:
    """Sort key: embed first, then layer by layer with attention before MLP, then head and norm."""
    layer, _, part = block.partition(".")
    if layer.isdigit():
        return 1, int(layer), part
    return (0 if block == "embed" else 2), 0, block
