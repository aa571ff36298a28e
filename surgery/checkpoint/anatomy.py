"""What a checkpoint holds, tower by tower, from its headers alone."""

from collections import Counter
from collections.abc import Mapping

from vlsurgery.surgery.architecture.decoder_stack import parent
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import TOWERS, Site
from vlsurgery.surgery.checkpoint.checkpoint import Checkpoint
from vlsurgery.surgery.results import AnatomyResult, Tower, TowerAnatomy, TypedTensor


def describe(checkpoint: Checkpoint) -> AnatomyResult:
    """What a checkpoint holds, tower by tower and tensor by tensor, from its headers alone."""
    sites = identify(checkpoint.shapes, checkpoint.config)
    tensors = [
        TypedTensor(
            name=name, tower=site.tower, layer=site.layer, component=site.component, block=site.block,
            shape=list(checkpoint[name].shape), dtype=checkpoint[name].dtype_name, own_layer=site.own_layer,
        )
        for name, site in sorted(sites.items(), key=lambda item: item[1].order)
    ]  # fmt: skip
    named = {site: name for name, site in sites.items()}
    dtypes = Counter(tensor.dtype_name for tensor in checkpoint.values())
    return AnatomyResult(
        checkpoints={"checkpoint": checkpoint.ref_model},
        model_type=str(checkpoint.config["model_type"]) if "model_type" in checkpoint.config else None,
        towers=[_tower(tower, checkpoint, sites) for tower in TOWERS if any(s.tower == tower for s in sites.values())],
        tensors=tensors,
        parameters=sum(tensor.numel for tensor in checkpoint.values()),
        bytes=sum(tensor.nbytes for tensor in checkpoint.values()),
        dtypes=dict(dtypes),
        tied=ties_head(checkpoint, named.get(Site("text", None, "embed")), named.get(Site("text", None, "head"))),
        quantised=checkpoint.quantised,
        notes=list(checkpoint.notes),
    )


def ties_head(checkpoint: Checkpoint, embed: str | None, head: str | None) -> bool:
    """Whether the head is the embedding: by the config's top level; where it is silent, by the file, which then has no
    head. A bare text model, whose embedding lies at the top, has no head to tie, whatever its config says.

    embed, head: the names of their tensors, None where the file has none.
    """
    if head is None and embed is not None and not parent(embed):
        return False
    stated = checkpoint.config.get("tie_word_embeddings")
    return stated if isinstance(stated, bool) else head is None


def _tower(tower: Tower, checkpoint: Checkpoint, sites: Mapping[str, Site]) -> TowerAnatomy:
    names = [name for name, site in sites.items() if site.tower == tower]
    return TowerAnatomy(
        tower=tower,
        layers=len({sites[name].layer for name in names} - {None}),
        components=sorted({sites[name].component for name in names}),
        tensors=len(names),
        parameters=sum(checkpoint[name].numel for name in names),
    )
