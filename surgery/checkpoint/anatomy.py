"""What a checkpoint holds, tower by tower, from its headers alone."""

from collections import Counter
from collections.abc import Mapping

from vlsurgery.surgery.architecture.decoder_stack import parent
from vlsurgery.surgery.architecture.site import TOWERS, Site
from vlsurgery.surgery.checkpoint.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.completeness import incomplete, wrapper_note
from vlsurgery.surgery.checkpoint.lazy_tensor import same_entries
from vlsurgery.surgery.errors import AlignmentError, CheckpointError
from vlsurgery.surgery.results import AnatomyResult, Tower, TowerAnatomy, TypedTensor


def describe(checkpoint: Checkpoint) -> AnatomyResult:
    """What a checkpoint holds, tower by tower and tensor by tensor, from its headers alone. A head in the file of a
    model that ties it is read and compared with the embedding.

    Raises AlignmentError where there is no text stack, CheckpointError where weights are missing because of which there
    is none.
    """
    fault = incomplete(checkpoint)
    try:
        sites = checkpoint.sites
    except AlignmentError as error:
        if fault is None:
            raise
        raise CheckpointError(f"{checkpoint.ref}: {fault}") from error
    tensors = [
        TypedTensor(
            name=name, tower=site.tower, layer=site.layer, component=site.component, block=site.block,
            shape=list(checkpoint[name].shape), dtype=checkpoint[name].dtype_name, own_layer=site.own_layer,
        )
        for name, site in sorted(sites.items(), key=lambda item: item[1].order)
    ]  # fmt: skip
    named = {site: name for name, site in sites.items()}
    dtypes = Counter(tensor.dtype_name for tensor in checkpoint.values())
    embed, head = (named.get(Site("text", None, component)) for component in ("embed", "head"))
    remarks = (fault, wrapper_note(checkpoint), headless_note(checkpoint, embed, head))
    return AnatomyResult(
        checkpoints={"checkpoint": checkpoint.ref_model},
        model_type=str(checkpoint.config["model_type"]) if "model_type" in checkpoint.config else None,
        towers=[_tower(tower, checkpoint, sites) for tower in TOWERS if any(s.tower == tower for s in sites.values())],
        tensors=tensors,
        parameters=sum(tensor.numel for tensor in checkpoint.values()),
        bytes=sum(tensor.nbytes for tensor in checkpoint.values()),
        dtypes=dict(dtypes),
        tied=ties_head(checkpoint, embed, head),
        quantised=checkpoint.quantised,
        notes=[*checkpoint.notes, *(note for note in remarks if note)],
    )


def ties_head(checkpoint: Checkpoint, embed: str | None, head: str | None) -> bool:
    """Whether the head is the embedding: by the config's top level; where it is silent, by the file, which then has no
    head. A head in the file that differs from the embedding is the model's own, whatever the config says: transformers
    uses it. So is one without an embedding in the file. A bare text model, whose embedding lies at the
    top, has no head to tie, whatever its config says.

    embed, head: the names of their tensors, None where the file has none.
    """
    if head is None and embed is not None and not parent(embed):
        return False
    stated = checkpoint.config.get("tie_word_embeddings")
    if not isinstance(stated, bool):
        return head is None
    if not stated or head is None:
        return stated
    if embed is None:
        return False
    return checkpoint.headers_only or same_entries(checkpoint[head], checkpoint[embed])


def headless_note(checkpoint: Checkpoint, embed: str | None, head: str | None) -> str | None:
    """A remark where the config says that the head is no embedding, and no file holds a head; else None. embed, head:
    as in `ties_head`."""
    config = checkpoint.config
    made_for = config.get("architectures")
    names = [str(each) for each in made_for] if isinstance(made_for, list) else []
    speaks = any(name.endswith(("CausalLM", "ConditionalGeneration", "LMHeadModel")) for name in names)
    nested = any(isinstance(part, Mapping) and part.get("tie_word_embeddings") is True for part in config.values())
    if head is not None or embed is None or not speaks or nested or config.get("tie_word_embeddings") is not False:
        return None
    return (
        "the config says that the head is not the embedding (tie_word_embeddings: false), but the files hold no head, "
        "so that transformers would draw one at random. Get the whole model, or set it to true where they are one."
    )


def _tower(tower: Tower, checkpoint: Checkpoint, sites: Mapping[str, Site]) -> TowerAnatomy:
    names = [name for name, site in sites.items() if site.tower == tower]
    return TowerAnatomy(
        tower=tower,
        layers=len({sites[name].layer for name in names} - {None}),
        components=sorted({sites[name].component for name in names}),
        tensors=len(names),
        parameters=sum(checkpoint[name].numel for name in names),
    )
