"""Where in its tower mergekit sees a tensor: what its gradients are interpolated by."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_NUMBER: Final = re.compile(r"\.(\d+)\.")


class Place(NamedTuple):
    """stack: what stands before the layer's number, "model.layers"; None outside of layers. layer: the number.
    layers: how many the stack has."""

    stack: str | None
    layer: int
    layers: int

    def t(self, start: int = 0, stop: int | None = None) -> float:
        """Where a gradient over the layers `start` to `stop` (all where None) is read, 0 ... 1.

        Outside of layers that is its first value, for the head and the final norm too; a single layer has its last.
        """
        if self.stack is None:
            return 0.0
        count = (self.layers if stop is None else stop) - start
        return (self.layer - start) / (count - 1) if count > 1 else 1.0


def places(names: Iterable[str]) -> dict[str, Place]:
    """The place of every tensor, by raw name: the first number between dots is its layer's."""
    found = {name: _NUMBER.search(name) for name in names}
    stacks = {name: (name[: match.start()], int(match[1])) for name, match in found.items() if match}
    layers: dict[str, int] = {}
    for stack, layer in stacks.values():
        layers[stack] = max(layers.get(stack, 0), layer + 1)
    return {
        name: Place(stacks[name][0], stacks[name][1], layers[stacks[name][0]]) if match else Place(None, 0, 0)
        for name, match in found.items()
    }
