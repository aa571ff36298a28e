"""Finds the text stack by structure: the numbered container of a language model's layers, whatever its name.

Its numbers run from 0 without a gap, as many as the config says; its layers hold norms and matrices of the config's
width; the table of the vocabulary lies beside it. Vision and audio towers can have as many layers, as wide and with the
same modules, but no such table.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from vlsurgery.surgery.architecture import naming
from vlsurgery.surgery.errors import AlignmentError

# A number between dots, with a word in front. A pattern that starts with the dot lets the search skip to dots.
_NUMBER: Final = re.compile(r"\.(?<=[^.]\.)([0-9]+)(?=\.)")

Shape = tuple[int, ...]
Layers = dict[int, dict[str, Shape]]


def format_shape(shape: Shape) -> str:
    """A shape as errors spell it: "16 x 12"."""
    return " x ".join(map(str, shape)) or "a scalar"


@dataclass(frozen=True)
class DecoderConfig:
    """What a config says of its language model; None where it is silent (old ones leave defaults out).

    inner: the width inside of the MLP. tied: whether its top level says that the head is the embedding. words: of the
    sections that it stands in ("text" of text_config). others: words of the sections of other parts that have layers.
    """

    layers: int | None
    width: int | None
    vocabulary: int | None
    inner: int | None
    tied: bool
    words: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @staticmethod
    def section(config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The part of a config that speaks of the language model."""
        for key in naming.TEXT_CONFIGS:
            config = config[key] if isinstance(config.get(key), Mapping) else config
        return config

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> "DecoderConfig":
        text: Mapping[str, Any] = config or {}
        words: set[str] = set()
        others: set[str] = set()
        for key in naming.TEXT_CONFIGS:
            if isinstance(text.get(key), Mapping):
                words |= _section_words(key)
                others.update(*(_section_words(each) for each in text if each != key and _has_layers(text[each])))
                text = text[key]
        tied = (config or {}).get("tie_word_embeddings") is True
        layers, width = _first(text, naming.LAYER_COUNTS), _first(text, naming.WIDTHS)
        vocabulary, inner = _first(text, ("vocab_size",)), _first(text, naming.INNER)
        return cls(layers, width, vocabulary, inner, tied, frozenset(words), frozenset(others - words))


@dataclass(frozen=True)
class TextStack:
    """The numbered container of a language model's layers.

    prefix: its name ("model.layers"). layers: number -> suffix -> shape. width: of the residual stream.
    vocabulary: the least number of rows that a table of the vocabulary has; 0 where the config says nothing.
    """

    prefix: str
    layers: Layers
    width: int
    vocabulary: int
    tied: bool

    @cached_property
    def root(self) -> tuple[str, ...]:
        """The path of the module that holds the container."""
        return tuple(self.prefix.split(".")[:-1])

    def is_table(self, name: str, shape: Shape) -> bool:
        """Whether a tensor can have a row per token: by its shape, and as it lies beside the stack or above it."""
        if name.count(".") > len(self.root) + 1:
            # Too deep to be above. Most names are, so this test comes first.
            return False
        return _is_table(name, shape, self.width, self.vocabulary) and is_above(parent(name), self.root)


def find_text_stack(
    shapes: Mapping[str, Shape], config: Mapping[str, Any] | None, chosen: str | None = None
) -> TextStack:
    """The one text stack among `shapes`. chosen: the name of its container, where that is known.

    Raises AlignmentError when there is none, or when two are as likely and neither is chosen.
    """
    facts = DecoderConfig.of(config)
    stacks = numbered(shapes)
    inside = numbered(shapes, nested=True)
    candidates = _candidates(stacks, facts) or _candidates(inside, facts) or _candidates(stacks, facts, normed=False)
    if chosen is not None:
        candidates = [stack for stack in candidates if stack.prefix == chosen]
    ranked = sorted(((_closeness(stack, shapes, facts), stack) for stack in candidates), key=lambda item: item[0])
    if not ranked:
        raise AlignmentError(_none_found(stacks, facts, chosen))
    if len(ranked) > 1 and ranked[-1][0] == ranked[-2][0]:
        first, second = sorted(stack.prefix for _, stack in ranked[-2:])
        raise AlignmentError(
            f"two containers look like the text stack, {first!r} and {second!r}, and nothing tells which it is: say so "
            f"with --text-stack {first} or --text-stack {second}"
        )
    return ranked[-1][1]


def _candidates(stacks: Mapping[str, Layers], facts: DecoderConfig, normed: bool = True) -> list[TextStack]:
    """normed: whether layers have norms with weights; those of OLMo and nanochat have none at all."""
    widths = {prefix: _decoder_width(layers, facts, normed) for prefix, layers in stacks.items()}
    return [
        TextStack(prefix, stacks[prefix], width, facts.vocabulary or 0, facts.tied)
        for prefix, width in widths.items()
        if width is not None
    ]


def numbered(names: Iterable[str] | Mapping[str, Shape], nested: bool = False) -> dict[str, Layers]:
    """Every container with numbered members: its name -> number -> the member's suffix -> shape. nested: with those
    inside a member of another one (a layer's experts), which are many."""
    shapes = names if isinstance(names, Mapping) else dict.fromkeys(names, ())
    found: dict[str, Layers] = {}
    # Layer's whole name ("model.layers.0") -> members; a cache, as most names share one.
    known: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        for place in _NUMBER.finditer(name):
            end = place.end()
            layer = name[:end]
            members = known.get(layer)
            if members is None:
                layers = found.setdefault(name[: place.start()], {})
                members = known[layer] = layers.setdefault(int(place[1]), {})
            members[name[end + 1 :]] = shape
            if not nested:
                break
    return found


def split_number(name: str) -> tuple[str, int, str] | None:
    """A name's outermost numbered container, the number in it, and the suffix; None without a number."""
    found = _NUMBER.search(name)
    return None if found is None else (name[: found.start()], int(found[1]), name[found.end() + 1 :])


def parent(name: str) -> tuple[str, ...]:
    """The path of the module that holds a tensor's own module: ("model",) for "model.norm.weight"."""
    return tuple(name.split(".")[:-2])


def is_above(path: tuple[str, ...], root: tuple[str, ...]) -> bool:
    return root[: len(path)] == path


def _first(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)


def _decoder_width(layers: Layers, facts: DecoderConfig, normed: bool) -> int | None:
    """The width of a container's layers when their numbers, norms and matrices can be the decoder's; else None."""
    if sorted(layers) != list(range(len(layers))) or facts.layers not in (None, len(layers)):
        return None
    members = [shape for layer in layers.values() for shape in layer.values()]
    norms = Counter(shape[0] for shape in members if len(shape) == 1)
    width = facts.width or (norms.most_common(1)[0][0] if norms else None)
    matrices = sum(len(shape) > 1 and width in shape for shape in members)
    # With several residual streams (hyper-connections), a norm is as wide as all of them together.
    if not width or matrices < 3:
        return None
    return width if any(size % width == 0 for size in norms) or not (normed or norms) else None


def _is_table(name: str, shape: Shape, width: int, vocabulary: int) -> bool:
    segments = name.split(".")
    if any(segment.isdecimal() for segment in segments) or naming.tower_of(segments) is not None:
        return False
    # A table split into old and new rows has fewer rows than the config says, so its name decides.
    module = naming.module_word(name)
    least = 1 if module in naming.NEW_ROWS or name.endswith(naming.SPLIT_TABLE) else max(vocabulary, 1)
    if len(shape) != 2 or shape[0] < least:
        return False
    # Some tables are narrower than the stream and projected (OPT 350m): there the name and the rows decide.
    return shape[1] == width or (vocabulary > 0 and module in naming.EMBEDS | naming.HEADS)


def _closeness(
    stack: TextStack, shapes: Mapping[str, Shape], facts: DecoderConfig
) -> tuple[bool, bool, bool, int, int]:
    """What candidates are ranked by: a vocabulary's table beside the stack, no word of another tower in its path, no
    cross-attention, how much more the config says of it, and the length of the path that it shares with such a
    table."""
    tables = {name: shape for name, shape in shapes.items() if stack.is_table(name, shape)}
    above = [parent(name) for name in tables]
    foreign = naming.tower_of(stack.prefix.split(".")) is not None
    modules = {suffix.split(".")[0] for suffix in stack.layers[0]}
    crosses = "cross_attn" in {naming.CONTAINERS.get(module) for module in modules}
    told = _told(stack, {shape[0] for name, shape in tables.items() if parent(name) == stack.root}, facts)
    return stack.root in above, not foreign, not crosses, told, max(map(len, above), default=-1)


def _told(stack: TextStack, rows: Collection[int], facts: DecoderConfig) -> int:
    """How much a config says of a stack beyond layers and width: the very number of rows of the table beside it, the
    width inside of its MLP, and its section's name; less where it is named as another section is."""
    words = {word for segment in stack.prefix.split(".") for word in segment.split("_")}
    inside = any(facts.inner in shape for shape in stack.layers[0].values() if len(shape) > 1)
    return (facts.vocabulary in rows) + inside + bool(words & facts.words) - bool(words & facts.others)


def _section_words(key: str) -> set[str]:
    return set(key.removesuffix("_config").split("_"))


def _has_layers(section: Any) -> bool:
    return isinstance(section, Mapping) and _first(section, naming.LAYER_COUNTS) is not None


def _none_found(stacks: dict[str, Layers], facts: DecoderConfig, chosen: str | None) -> str:
    sizes = sorted(stacks, key=lambda prefix: -sum(map(len, stacks[prefix].values())))[:3]
    seen = ", ".join(f"{prefix} ({len(stacks[prefix])} members)" for prefix in sizes) or "no numbered layers at all"
    count = "any number of" if facts.layers is None else facts.layers
    width = "any width" if facts.width is None else f"width {facts.width}"
    named = "" if chosen is None else f" called {chosen}"
    return f"no text stack{named}: looked for {count} layers of {width}; found {seen}"
