"""Where in a checkpoint's files the tensor of a live model lies: module names in, file names and rows out.

Files keep names of their own (`save_pretrained` writes the Hub's older ones), and may hold in one tensor what a model
holds in several, or the reverse. A path is matched by its end, within the same tower; containers of layers are matched
as a whole, so that one tensor can't go astray. What is not clear has no place.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from vlsurgery.surgery.architecture import naming
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor

# Modules that files hold as one tensor, in the order of its rows, and what files call it.
FUSED: Final = {
    ("q_proj", "k_proj", "v_proj"): ("qkv_proj", "qkv", "Wqkv", "w_qkv", "att_proj"),
    ("gate_proj", "up_proj"): ("gate_up_proj", "weights_in", "w12"),
    ("up_proj", "gate_proj"): ("ff_proj",),
}  # fmt: skip

# What files may call q, k or fused halves whose rows they keep in the live model's order. Others turn them for rotary
# embeddings (wq, wk), or interleave gate and up (w13).
KEPT_ORDER: Final = frozenset({"query", "key", "to_q", "to_k", "fc1", "fc2"})

_EXPERT: Final = re.compile(r"(.+\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
_EXPERTS: Final = re.compile(r"(.+\.experts)\.(gate_up_proj|gate_proj|up_proj|down_proj)")
_PLAIN: Final = re.compile(r"(attn\.[vo]|(mlp|expert\.\d+)\.(gate|up|down))(\.bias)?")
_COUNTED: Final = re.compile(r"(.+\.[a-z_]+)[1-9](\.[a-z_]+)")


@dataclass(frozen=True)
class Spot:
    """Rows of a file's tensor that hold rows of a live model's.

    name: in the file. width: of a row. start, stop: the rows. output: the live tensor's row that is `start`. expert:
    which one, where the live tensor holds `experts`. transposed: the file has inputs down and outputs across.
    """

    name: str
    width: int
    start: int
    stop: int
    output: int = 0
    expert: int = 0
    experts: int = 1
    transposed: bool = False


class Places:
    """Finds tensors of a live model in the files of its checkpoint.

    tensors: of the files. wanted: every name that will be asked for; together they tell which container is which.
    """

    def __init__(self, tensors: Mapping[str, LazyTensor], wanted: Iterable[str]) -> None:
        self._tensors = tensors
        self._wanted = sorted(set(wanted))

    def find(self, name: str) -> str | None:
        """The file's name of the very same tensor; None where nothing, or more than one thing, looks like it."""
        if name in self._tensors:
            return name
        container, rest = _split(name)
        if container is None:
            return self._find_unnumbered(name)
        home = self._homes.get(container)
        return None if home is None else self._member(home, rest)

    def spots(
        self, name: str, outputs: int, inputs: int, square: bool | None = False, turned: bool = False
    ) -> list[Spot]:
        """Where the weight or bias `name` lies: in a tensor of its own, in rows of one that holds more, or in many.

        outputs, inputs: of the live model's module; 1 input for a bias. square: whether a tensor with as many outputs
        as inputs, whose shape can't tell, has inputs down; None where nobody knows. turned: whether a matrix may have
        inputs down at all; one of experts always may. Empty where no place fits them.
        """
        same = self.find(name)
        if same is not None:
            spots = self._whole(same, outputs, inputs, square)
            return [spot for spot in spots if turned or not spot.transposed or len(self._tensors[spot.name].shape) == 3]
        return self._rows_of_fused(name, outputs, inputs) or self._experts(name, outputs, inputs)

    def head_is_tied(self, name: str) -> str | None:
        """The embedding's name in the file when `name` is a head that the file doesn't hold; else None."""
        container, _ = _split(name)
        if container is None and _module(name) in naming.HEADS and self.find(name) is None:
            return self._table(naming.EMBEDS)
        return None

    def _whole(self, same: str, outputs: int, inputs: int, square: bool | None) -> list[Spot]:
        """The spots of a tensor that both sides have: all of it, or of one with experts, each expert's rows."""
        shape = self._tensors[same].shape
        if len(shape) == 3 and shape[1:] in ((outputs, inputs), (inputs, outputs)):
            count, height, width = shape
        else:
            count, height, width = 1, shape[0] if shape else 1, math.prod(shape[1:])
        fits = [(height, width) == (outputs, inputs), (height, width) == (inputs, outputs) and len(shape) in (2, 3)]
        if not any(fits) or (all(fits) and inputs > 1 and square is None):
            return []
        turned = square is True if all(fits) else fits[1]
        return [
            Spot(same, width, height * each, height * (each + 1), expert=each, experts=count, transposed=turned)
            for each in range(count)
        ]

    def _rows_of_fused(self, name: str, outputs: int, inputs: int) -> list[Spot]:
        """A projection whose file fuses it with others (q, k and v; gate and up)."""
        path, _, leaf = name.rpartition(".")
        parent, _, part = path.rpartition(".")
        found: set[Spot] = set()
        for parts, fused in FUSED.items():
            for word in fused if part in parts else ():
                whole = self.find(f"{parent}.{word}.{leaf}")
                start = None if whole is None else self._start(whole, parts, part, outputs, inputs)
                if whole is not None and start is not None:
                    found.add(Spot(whole, inputs, start, start + outputs))
        return list(found) if len(found) == 1 else []

    def _start(self, whole: str, parts: tuple[str, ...], part: str, outputs: int, inputs: int) -> int | None:
        """The first row of `part` in a fused tensor. All parts are as long, or else k and v are, and q is longer."""
        shape = self._tensors[whole].shape
        place = parts.index(part)
        if math.prod(shape[1:]) != inputs:
            return None
        if shape[0] == len(parts) * outputs:
            return place * outputs
        if len(parts) != 3:
            return None
        queries = outputs if place == 0 else shape[0] - 2 * outputs
        keys = (shape[0] - queries) // 2
        fits = 0 < keys < queries and queries + 2 * keys == shape[0]
        return (0, queries, queries + keys)[place] if fits else None

    def _experts(self, name: str, outputs: int, inputs: int) -> list[Spot]:
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
        return [Spot(whole, inputs, start, start + outputs)]

    def _one_by_one(self, path: str, parts: tuple[str, ...], outputs: int, inputs: int) -> list[Spot]:
        spots: list[Spot] = []
        count = 0
        while all(self.find(f"{path}.{count}.{part}.weight") for part in parts):
            count += 1
        for expert in range(count):
            for place, part in enumerate(parts):
                found = self.find(f"{path}.{expert}.{part}.weight")
                if found is None or self._tensors[found].shape != (outputs, inputs):
                    return []
                spots.append(Spot(found, inputs, 0, outputs, place * outputs, expert, count))
        return spots

    def _find_unnumbered(self, name: str) -> str | None:
        """The name outside of containers, in the same tower, whose end agrees the furthest."""
        tower, segments = _tower(name), name.split(".")
        ends = {found: _common_end(segments, found.split(".")) for found in self._unnumbered if _tower(found) == tower}
        longest = max(ends.values(), default=0)
        found = [other for other, length in ends.items() if length == longest]
        if longest >= 2 and len(found) == 1:
            return found[0]
        for words in (naming.EMBEDS, naming.HEADS):
            if tower is None and _module(name) in words:
                return self._table(words)
        return None

    def _table(self, words: Collection[str]) -> str | None:
        """The one tensor of the text tower whose module is called so."""
        tables = [name for name in self._unnumbered if _module(name) in words and _tower(name) is None]
        return tables[0] if len(tables) == 1 else None

    @cached_property
    def _unnumbered(self) -> list[str]:
        return [name for name in self._tensors if _split(name)[0] is None]

    @cached_property
    def _members(self) -> dict[str, dict[str, str]]:
        """Container -> what is behind its name -> whole name, of the files' tensors."""
        members: dict[str, dict[str, str]] = {}
        for name in self._tensors:
            container, rest = _split(name)
            if container is not None:
                members.setdefault(container, {})[rest] = name
        return members

    @cached_property
    def _numbers(self) -> dict[str, set[str]]:
        return {home: {rest.split(".")[0] for rest in members} for home, members in self._members.items()}

    @cached_property
    def _components(self) -> dict[str, dict[tuple[str, str], str]]:
        """Container -> (number, component) -> whole name; a component that two tensors claim is left out."""
        return {container: _by_component(members) for container, members in self._members.items()}

    @cached_property
    def _homes(self) -> dict[str, str]:
        """Container of the live model -> the file's; those that stay unclear are left out."""
        wanted: dict[str, list[str]] = {}
        for name in self._wanted:
            container, rest = _split(name)
            if container is not None:
                wanted.setdefault(container, []).append(rest)
        homes = {container: container for container in wanted if container in self._members}
        for container, rests in wanted.items():
            if container not in homes:
                free = [home for home in self._members if home not in homes.values()]
                home = self._home(container, rests, free)
                if home is not None:
                    homes[container] = home
        taken = list(homes.values())
        return {container: home for container, home in homes.items() if taken.count(home) == 1}

    def _home(self, container: str, rests: list[str], free: list[str]) -> str | None:
        """Which container of the file is the live model's: of the same tower, holding the most of what is wanted,
        then the one whose path agrees the furthest at its end."""
        tower, segments = _tower(container), container.split(".")
        scores = {
            home: (sum(self._holds(home, rest) for rest in rests), _common_end(segments, home.split(".")))
            for home in free
            if _tower(home) == tower
        }
        best = max(scores.values(), default=(0, 0))
        found = [home for home, score in scores.items() if score == best]
        return found[0] if best[0] and len(found) == 1 else None

    def _holds(self, home: str, rest: str) -> bool:
        """Whether a container holds a tensor, or the layer in which a fused one may hold it."""
        return self._member(home, rest) is not None or rest.split(".")[0] in self._numbers[home]

    def _member(self, home: str, rest: str) -> str | None:
        """A tensor of a container: by the rest of its name, or by its component where the tables know that."""
        if rest in self._members[home]:
            return None if self._counts_from_zero(home, rest) else self._members[home][rest]
        number, _, suffix = rest.partition(".")
        component = naming.component(suffix, ())
        found = self._components[home].get((number, component))
        if component.startswith(("raw:", "norm.")) or found is None:
            return None
        same_rows = _module(found) in {_module(rest), *KEPT_ORDER} or _PLAIN.fullmatch(component)
        return found if same_rows else None

    def _counts_from_zero(self, home: str, rest: str) -> bool:
        """Whether the file counts fc0, fc1 where the live model may count fc1, fc2: then the same name is another
        module."""
        counted = _COUNTED.fullmatch(rest)
        first = counted and f"{counted[1]}0{counted[2]}"
        return first in self._members[home] and not any(name.endswith(f".{first}") for name in self._wanted)


def _by_component(members: Mapping[str, str]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    twice = set()
    for rest, name in members.items():
        number, _, suffix = rest.partition(".")
        key = (number, naming.component(suffix, ()))
        if key in found:
            twice.add(key)
        found[key] = name
    return {key: name for key, name in found.items() if key not in twice}


def _split(name: str) -> tuple[str | None, str]:
    """A name as its outermost numbered container and the rest from the number on; (None, name) without numbers."""
    segments = name.split(".")
    for place, segment in enumerate(segments):
        if place and segment.isdecimal() and place < len(segments) - 1:
            return ".".join(segments[:place]), ".".join(segments[place:])
    return None, name


def _module(name: str) -> str:
    return naming.split_leaf(name)[0].rpartition(".")[2]


def _tower(name: str) -> str | None:
    return naming.tower_of(name.split("."))


def _common_end(first: list[str], second: list[str]) -> int:
    return sum(1 for _ in _while_equal(reversed(first), reversed(second)))


def _while_equal(first: Iterable[str], second: Iterable[str]) -> Iterator[str]:
    for one, other in zip(first, second, strict=False):
        if one != other:
            return
        yield one
