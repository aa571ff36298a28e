"""What of the adapted model's decoder blocks a merge toward the base leaves as it is, because the base has no such
weights."""

from collections.abc import Iterator

from vlsurgery.probes.in_memory_merge import InMemoryMerge


def kept_as_adapted(live: InMemoryMerge) -> Iterator[str]:
    """A note on whole layers (Llama 3.2 Vision's cross-attention), and one on single weights (experts of pictures)."""
    moved = {id(entry.parameter) for entry in live.entries}
    layers, weights = list[str](), list[str]()
    for number, block in enumerate(live.chat.blocks):
        kept = [f"{number}.{name}" for name, weight in block.named_parameters() if id(weight) not in moved]
        if kept and len(kept) == len([*block.parameters()]):
            layers.append(str(number))
        else:
            weights += kept
    whose = "which the base lacks: graft, transplants and merges leave them as adapted"
    if layers:
        yield f"the adapted model has {len(layers)} layers ({', '.join(layers)}), {whose}"
    if weights:
        yield f"the adapted model has {len(weights)} weights in its layers, the first {weights[0]}, {whose}"
