"""Where a checkpoint's files keep the parameters of its live model: module names in, file names and rows out.

Files have names of their own (`save_pretrained` writes the Hub's older ones), and may hold in one tensor what a model
holds in several, or the reverse. A container of layers is matched as a whole and within one tower, so that no single
tensor is misplaced. A parameter whose place is not clear has none.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from itertools import takewhile
from typing import Final

from vlsurgery.surgery.architecture import naming
from vlsurgery.surgery.architecture.decoder_stack import numbered, split_number
from vlsurgery.surgery.architecture.identify import components
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor
from vlsurgery.surgery.checkpoint.lora.low_rank import RowRange

# Fused modules whose rows are not those of q, k and v (or gate and up), one after the other, of the live model.
REORDERED: Final = naming.IN_TURNS | {"wqkv"}

# File words for q, k and an MLP's matrices that keep the live model's order of rows. Others (wq, wk) permute it for
# rotary embeddings.
KEPT_ORDER: Final = frozenset({"query", "key", "to_q", "to_k", "fc1", "fc2"})

_EXPERT: Final = re.compile(r"(.+\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
_EXPERTS: Final = re.compile(r"(.+\.experts)\.(gate_up_proj|gate_proj|up_proj|down_proj)")
_PLAIN: Final = re.compile(r"(attn\.[vo]|(mlp|expert\.\d+)\.(gate|up|down))(\.bias)?")
_COUNTED: Final = re.compile(r"(.+\.[a-z_]+)[1-9](\.[a-z_]+)")


class ParameterLocator:
    """Finds the parameters of a live model in the files of its checkpoint.

    tensors: of the files. wanted: every name that will be asked for; together they tell which container is which.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], wanted: Iterable[str]) -> None:
        self._tensors = tensors
        self._wanted = sorted(set(wanted))
        self._containers = numbered({name: tensor.shape for name, tensor in tensors.items()})
        self._unnumbered = [name for name in tensors if split_number(name) is None]

    def find(self, name: str) -> str | None:
        """The file's name of a whole parameter; None where no tensor, or more than one, fits."""
        if name in self._tensors:
            return name
        place = split_number(name)
        if place is None:
            return self._find_unnumbered(name)
        home = self._homes.get(place[0])
        found = None if home is None else self._member(home, *place[1:])
        return found if found in self._tensors else None

    def rows(
        self, name: str, outputs: int, inputs: int, square: bool | None = False, allow_transposed: bool = False
    ) -> list[RowRange]:
        """Where the weight or bias `name` lies: in a tensor of its own, in rows of a fused one, or in many tensors.

        outputs, inputs: of the live module; 1 input for a bias. square: whether a tensor with as many outputs as inputs
        is stored [in, out]; None where nothing tells. allow_transposed: whether a matrix may be; one of experts always
        may. Empty where no place fits.
        """
        same = self.find(name)
        if same is None:
            return self._rows_of_fused(name, outputs, inputs) or self._experts(name, outputs, inputs)
        stacked = len(self._tensors[same].shape) == 3
        found = self._whole(same, outputs, inputs, square)
        return [rows for rows in found if allow_transposed or stacked or not rows.transposed]

    def tied_head(self, name: str) -> str | None:
        """The embedding's name in the file when `name` is a head that the file does not hold; else None."""
        if split_number(name) is None and naming.module_word(name) in naming.HEADS and self.find(name) is None:
            return self._table(naming.EMBEDS)
        return None

    def _whole(self, same: str, outputs: int, inputs: int, square: bool | None) -> list[RowRange]:
        """All rows of a tensor that both sides have; of one with experts, each expert's rows."""
        shape = self._tensors[same].shape
        if len(shape) == 3 and shape[1:] in ((outputs, inputs), (inputs, outputs)):
            count, height, width = shape
        else:
            count, height, width = 1, shape[0] if shape else 1, math.prod(shape[1:])
        fits = [(height, width) == (outputs, inputs), (height, width) == (inputs, outputs) and len(shape) in (2, 3)]
        if not any(fits) or (all(fits) and inputs > 1 and square is None):
            return []
        transposed = square is True if all(fits) else fits[1]
        return [
            RowRange(same, width, height * each, height * (each + 1), expert=each, experts=count, transposed=transposed)
            for each in range(count)
        ]

    def _rows_of_fused(self, name: str, outputs: int, inputs: int) -> list[RowRange]:
        """The rows of a projection that the file fuses with others (q, k and v; gate and up)."""
        path, _, leaf = name.rpartition(".")
        parent, _, module = path.rpartition(".")
        part = module.removesuffix("_proj")
        found: set[RowRange] = set()
        for word, order in naming.FUSED.items():
            if part == module or part not in order or word in REORDERED:
                continue
            whole = self.find(f"{parent}.{word}.{leaf}")
            start = None if whole is None else self._start(whole, order.index(part), len(order), outputs, inputs)
            if whole is not None and start is not None:
                found.add(RowRange(whole, inputs, start, start + outputs))
        return list(found) if len(found) == 1 else []

    def _start(self, whole: str, place: int, parts: int, outputs: int, inputs: int) -> int | None:
        """The first row of the part at `place` in a fused tensor. All parts are as long, or k and v are, and q is
        longer."""
        shape = self._tensors[whole].shape
        if math.prod(shape[1:]) != inputs:
            return None
        if shape[0] == parts * outputs:
            return place * outputs
        queries = outputs if place == 0 else shape[0] - 2 * outputs
        keys = (shape[0] - queries) // 2
        fits = parts == 3 and 0 < keys < queries and queries + 2 * keys == shape[0]
        return (0, queries, queries + keys)[place] if fits else None

    def _experts(self, name: str, outputs: int, inputs: int) -> list[RowRange]:
        """Experts that the model holds in one tensor and the file one by one, or the reverse."""
        single, many = _EXPERT.fullmatch(name), _EXPERTS.fullmatch(name)
        if many:
            parts = ("gate_proj", "up_proj") if many[2] == "gate_up_proj" else (many[2],)
            return self._one_by_one(many[1], parts, outputs // len(parts), inputs)
        if single is None:
            return []
        path, number, part = single[1], int(single[2]), single[3]
        parts = ("down_proj",) if part == "down_proj" else ("gate_proj", "up_proj")
        whole = self.find(f"{path}.{'down_proj' if len(parts) == 1 else 'gate_up_proj'}")
        shape = () if whole is None else self._tensors[whole].shape
        if whole is None or len(shape) != 3 or shape[1:] != (len(parts) * outputs, inputs) or number >= shape[0]:
            return []
        start = number * shape[1] + parts.index(part) * outputs
        return [RowRange(whole, inputs, start, start + outputs)]

    def _one_by_one(self, path: str, parts: tuple[str, ...], outputs: int, inputs: int) -> list[RowRange]:
        found: list[list[str | None]] = []
        while all(expert := [self.find(f"{path}.{len(found)}.{part}.weight") for part in parts]):
            found.append(expert)
        rows = [
            RowRange(name, inputs, 0, outputs, place * outputs, expert, len(found))
            for expert, names in enumerate(found)
            for place, name in enumerate(names)
            if name is not None
        ]
        return rows if all(self._tensors[part.name].shape == (outputs, inputs) for part in rows) else []

    def _find_unnumbered(self, name: str) -> str | None:
        """The tensor outside of containers, in the same tower, whose name shares the longest end."""
        tower = _tower(name)
        ends = {found: _common_end(name, found) for found in self._unnumbered if _tower(found) == tower}
        longest = max(ends.values(), default=0)
        found = [other for other, length in ends.items() if length == longest]
        if longest >= 2 and len(found) == 1:
            return found[0]
        for words in (naming.EMBEDS, naming.HEADS):
            if tower is None and naming.module_word(name) in words:
                return self._table(words)
        return None

    def _table(self, words: Collection[str]) -> str | None:
        """The one tensor of the text tower whose module has one of these names."""
        tables = [name for name in self._unnumbered if naming.module_word(name) in words and _tower(name) is None]
        return tables[0] if len(tables) == 1 else None

    @cached_property
    def _components(self) -> dict[tuple[str, int], dict[str, str]]:
        """(Container, number) -> component -> suffix, of the files' layers."""
        return {
            (home, number): {
                component: suffix
                for suffix, component in components({suffix: len(shape) for suffix, shape in members.items()}).items()
            }
            for home, layers in self._containers.items()
            for number, members in layers.items()
        }

    @cached_property
    def _homes(self) -> dict[str, str]:
        """Container of the live model -> the file's; those that stay unclear are left out."""
        wanted = numbered(self._wanted)
        homes = {container: container for container in wanted if container in self._containers}
        for container, layers in wanted.items():
            if container not in homes:
                free = [home for home in self._containers if home not in homes.values()]
                home = self._home(container, [(number, rest) for number in layers for rest in layers[number]], free)
                if home is not None:
                    homes[container] = home
        taken = list(homes.values())
        return {container: home for container, home in homes.items() if taken.count(home) == 1}

    def _home(self, container: str, wanted: list[tuple[int, str]], free: list[str]) -> str | None:
        """The file's container that is the live model's: of the same tower, with the most layers in which something is
        wanted, then with the longest common end of its path."""
        tower = _tower(container)
        scores = {
            home: (sum(number in self._containers[home] for number, _ in wanted), _common_end(container, home))
            for home in free
            if _tower(home) == tower
        }
        best = max(scores.values(), default=(0, 0))
        found = [home for home, score in scores.items() if score == best]
        return found[0] if best[0] and len(found) == 1 else None

    def _member(self, home: str, number: int, suffix: str) -> str | None:
        """A tensor of a container: by the end of its name, or by its component where the name tables have it."""
        members = self._containers[home].get(number, {})
        if suffix in members:
            return None if self._counts_from_zero(number, suffix, members) else f"{home}.{number}.{suffix}"
        component = naming.component(suffix, ())
        found = self._components.get((home, number), {}).get(component)
        if component.startswith(("raw:", "norm.")) or found is None:
            return None
        known = naming.module_word(found) in {naming.module_word(suffix), *KEPT_ORDER} or _PLAIN.fullmatch(component)
        return f"{home}.{number}.{found}" if known else None

    def _counts_from_zero(self, number: int, suffix: str, members: Collection[str]) -> bool:
        """Whether the file counts fc0, fc1 where the live model may count fc1, fc2: then one name is two modules."""
        counted = _COUNTED.fullmatch(suffix)
        first = f"{counted[1]}0{counted[2]}" if counted else ""
        return first in members and not any(name.endswith(f".{number}.{first}") for name in self._wanted)


def _tower(name: str) -> str | None:
    return naming.tower_of(name.split("."))


def _common_end(first: str, second: str) -> int:
    """How many of the last words two names share."""
    words = zip(reversed(first.split(".")), reversed(second.split(".")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], words))
