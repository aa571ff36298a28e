"""YAML from elsewhere, without its traps: keys twice, aliases that explode, tags, endless numbers and nesting."""

from collections.abc import Mapping
from typing import Any, Final

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

# Room for a key per site of the largest mixtures of experts (70,000 sites) with four models each. libyaml reads as much
# in seconds.
MAX_BYTES: Final = 32_000_000
MAX_NODES: Final = 750_000  # values and keys, those behind an alias counted wherever it stands
MAX_DEPTH: Final = 30
MAX_SCALAR: Final = 10_000  # characters
MAX_INTEGER: Final = 2**64

_TEXT: Final = "tag:yaml.org,2002:str"

# libyaml's parser, six times as fast; an installation of PyYAML can lack it.
_Parser: Final[Any] = getattr(yaml.cyaml, "CParser") if yaml.__with_libyaml__ else None  # noqa: B009 (no stubs)


def load_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """What a YAML text holds, and its tree, whose nodes know their places in the text.

    Raises ValueError in one line for what is not YAML or goes beyond the bounds above.
    """
    try:
        loader = _BoundedLoader(text)
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def num_nodes(value: Any) -> int:
    """How many values and keys a value is as YAML, as `load_yaml` counts them."""
    if isinstance(value, Mapping):
        return 1 + sum(1 + num_nodes(each) for each in value.values())
    return 1 + sum(map(num_nodes, value)) if isinstance(value, list | tuple) else 1


class _FastLoader(Composer, _Parser or object, SafeConstructor, Resolver):  # type: ignore[misc]
    """yaml.SafeLoader with libyaml's parser, whose events are composed here, one by one."""

    def __init__(self, text: str) -> None:
        Composer.__init__(self)
        _Parser.__init__(self, text)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


class _BoundedLoader(_FastLoader if _Parser else yaml.SafeLoader):  # type: ignore[misc]
    """Counts nodes while it reads, so that it stops before memory or time run out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0
        self._open: set[str] = set()  # anchors of what is being read
        self._sizes: dict[str | None, int] = {}  # anchor -> nodes of what it names

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            return self._alias(parent, index, event)
        tag, mark = getattr(event, "tag", None), event.start_mark
        if tag not in (None, "!", _TEXT):
            raise _fault(f"the tag {tag:.80}, which orders a type; leave it out", mark)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR:
            raise _fault(f"a value of {len(event.value)} characters, more than {MAX_SCALAR}", mark)
        if self._depth == MAX_DEPTH:
            raise _fault(f"nested deeper than {MAX_DEPTH} levels", mark)
        self._count(1, mark)
        before, anchor = self._nodes, event.anchor
        self._depth += 1
        if anchor is not None:
            self._open.add(anchor)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._open.discard(anchor)
            self._sizes[anchor] = self._nodes - before + 1
        return node

    def _alias(self, parent: yaml.Node | None, index: int, event: yaml.AliasEvent) -> yaml.Node | None:
        if event.anchor in self._open:
            raise _fault(f"the alias *{event.anchor:.80} stands inside of what it names", event.start_mark)
        self._count(self._sizes.get(event.anchor, 1), event.start_mark)
        return super().compose_node(parent, index)

    def _count(self, nodes: int, mark: Any) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _fault(f"more than {MAX_NODES} values and keys, those behind aliases counted each time", mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise _fault("a key occurs twice", node.start_mark)
        return mapping

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        value = self.construct_yaml_int(node)
        if abs(value) >= MAX_INTEGER:
            raise _fault("an integer of more than 64 bits", node.start_mark)
        return value


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_integer)


def _fault(what: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, mark)
