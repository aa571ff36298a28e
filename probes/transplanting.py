"""Another model's weights in some blocks of a model in memory, while a context is open."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.points import Layers, Model, RunningModel
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import SurgeryError

EMBED, HEAD = Site("text", None, "embed"), Site("text", None, "head")
TABLES = (EMBED, HEAD)  # their rows are tokens: a donor may have fewer


@contextmanager
def transplant(
    model: Model, donor: Model, *, layers: Layers = None, blocks: Sequence[str] | None = None
) -> Iterator[None]:
    """While open, blocks of the model have the donor's weights; where a model's vocabulary grew, its new rows stay.

    donor: another model in memory, of the same text stack; it is only read. layers: whole layers. blocks: single ones,
    as results name them ("3.attn", "3.mlp", "3.other", "embed", "head", "norm"). Without either, all of the text stack.

    Raises SurgeryError for a block that there is not, and for weights that have no partner or another shape.
    """
    ours, theirs = RunningModel.of(model), RunningModel.of(donor)
    mine, other = _weights(ours.module), _weights(theirs.module)
    chosen = _chosen(mine, ours, layers, blocks)
    _refuse_other_head(chosen, mine, other)
    new = {site: _donated(site, mine[site], other, ours.module) for site in chosen}
    before = {site: mine[site].data for site in new}
    try:
        for site, value in new.items():
            mine[site].data = value
        yield
    finally:
        for site, value in before.items():
            mine[site].data = value


def _weights(module: nn.Module) -> dict[Site, Tensor]:
    """The text stack's parameters and buffers, by site; a head that is tied to the embedding is left out."""
    stored: dict[str, Any] = module.state_dict(keep_vars=True)
    config: Any = module.config
    sites = identify({name: tuple(value.shape) for name, value in stored.items()}, config.to_dict())
    found: dict[Site, Tensor] = {}
    seen: set[int] = set()
    for name in sorted(stored, key=lambda name: sites[name].block == "head"):  # the embedding before its tied head
        if sites[name].tower == "text" and sites[name].block is not None and id(stored[name]) not in seen:
            seen.add(id(stored[name]))
            found[sites[name]] = stored[name]
    return found


def _chosen(
    weights: dict[Site, Tensor], model: RunningModel, layers: Layers, blocks: Sequence[str] | None
) -> list[Site]:
    """The sites of the blocks that are asked for."""
    if layers is not None and blocks is not None:
        raise SurgeryError("transplant: give layers or blocks, not both.")
    if blocks is not None:
        known = {site.block for site in weights}
        if unknown := [block for block in blocks if block not in known]:
            raise SurgeryError(
                f"transplant: the model has no block {unknown[0]!r}. Blocks are named '0.attn', '0.mlp', 'embed', "
                "'head' or 'norm'; a head that is tied to the embedding goes with 'embed'."
            )
        return [site for site in weights if site.block in blocks]
    if layers is None:
        return [*weights]
    numbers = model.layer_numbers(layers)
    return [site for site in weights if site.layer in numbers]


def _refuse_other_head(chosen: Sequence[Site], own: dict[Site, Tensor], donor: dict[Site, Tensor]) -> None:
    """Refuse a donor whose head is not its embedding, where one tensor is both in the model."""
    if EMBED in chosen and HEAD not in own and HEAD in donor and not torch.equal(donor[HEAD], donor[EMBED]):
        raise SurgeryError(
            "transplant: the model's head is tied to its embedding, and the donor's is another matrix. Name the blocks "
            "to transplant, without 'embed'."
        )


def _donated(site: Site, own: Tensor, donor: dict[Site, Tensor], module: nn.Module) -> Tensor:
    """The donor's values for one of our tensors."""
    if site == HEAD and HEAD not in donor:
        site = EMBED  # the donor's head is tied
    if site not in donor:
        raise SurgeryError(
            f"transplant: the donor has no {site.key}, which {type(module).__name__} has. Give a donor with the same "
            "text stack, or leave that block out."
        )
    value = donor[site].detach().to(own.device, own.dtype)
    grown = site in TABLES and value.shape[1:] == own.shape[1:] and len(value) < len(own)
    if grown:
        return torch.cat([value, own.detach()[len(value) :]])
    if value.shape != own.shape:
        raise SurgeryError(
            f"transplant: {site.key} is {list(own.shape)} in the model and {list(value.shape)} in the donor. Give a "
            "donor with the same text stack."
        )
    return value
