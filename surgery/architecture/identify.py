"""The site of every tensor, from names and shapes: by structure first, then by the tables of `naming`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from vlsurgery.surgery.architecture import naming
from vlsurgery.surgery.architecture.decoder_stack import Shape, TextStack, find_text_stack, is_above, numbered, parent
from vlsurgery.surgery.architecture.site import TOWERS, Site
from vlsurgery.surgery.errors import AlignmentError
from vlsurgery.surgery.results import Tower

# Prefixes that only one of the legacy and native layouts has.
WRAPPERS: Final = ("model", "thinker")


def identify(
    shapes: Mapping[str, Shape], config: Mapping[str, Any] | None, text_stack: str | None = None
) -> dict[str, Site]:
    """The site of every tensor of one model.

    shapes: raw name -> shape, of a file or of a live model's state dict. config: config.json as a dict, for the
        language model's layers, width and vocabulary; with None, structure alone decides. text_stack: the name of the
        container of its layers ("model.layers"), where that is known.

    Raises AlignmentError when there is no text stack, or when two names would get the same site.
    """
    plain = _without_wrappers(shapes)
    if plain:
        chosen = None if text_stack is None else naming.unwrapped(f"{text_stack}.").removesuffix(".")
        found = identify({plain[name]: shape for name, shape in shapes.items()}, config, chosen)
        return {name: found[plain[name]] for name in shapes}
    native = _one_layout(shapes)
    if native:
        renamed = {native.get(name, name): shape for name, shape in shapes.items()}
        found = identify(renamed, config, None if text_stack is None else _native(text_stack))
        return {name: found[native.get(name, name)] for name in shapes}
    stack = find_text_stack(shapes, config, text_stack)
    sites = _text_sites(shapes, stack)
    towers: dict[Tower, list[str]] = {tower: [] for tower in TOWERS[1:]}
    for name in shapes:
        if name not in sites:
            towers[naming.tower_of(name.split(".")) or "other"].append(name)
    for tower, names in towers.items():
        if names:
            sites |= _tower_sites(names, tower)
    if len(set(sites.values())) < len(sites):
        _refuse_twice(sites)
    return {name: sites[name] for name in shapes}


def _refuse_twice(sites: Mapping[str, Site]) -> None:
    """Raise AlignmentError for the first two names that share a site."""
    owners: dict[Site, str] = {}
    for name, site in sites.items():
        if site in owners:
            raise AlignmentError(f"{owners[site]!r} and {name!r} both look like {site.key}; nothing tells which it is")
        owners[site] = name


def _without_wrappers(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Name -> name without the segments of training frameworks, where some name has one; else nothing.

    Raises AlignmentError where two names differ in these segments alone.
    """
    plain = {name: naming.unwrapped(name) for name in shapes}
    if all(name == short for name, short in plain.items()):
        return {}
    owners: dict[str, str] = {}
    for name, short in plain.items():
        if short in owners:
            raise AlignmentError(f"{owners[short]!r} and {name!r} are both {short!r}; nothing tells which it is")
        owners[short] = name
    return plain


def _one_layout(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Hub's name -> module's name, in a file that mixes both layouts; else nothing."""
    found: dict[str, str] = {}
    for legacy, native in naming.LEGACY_PREFIXES.items():
        old = [name for name in shapes if name.startswith(legacy)]
        if old and any(name.startswith(native) for name in shapes):
            found |= {name: native + name.removeprefix(legacy) for name in old}
    return {} if any(new in shapes for new in found.values()) else found


def _native(container: str) -> str:
    """A container's name as `_one_layout` has it."""
    for legacy, native in naming.LEGACY_PREFIXES.items():
        if container.startswith(legacy):
            return native + container.removeprefix(legacy)
    return container


def _text_sites(shapes: Mapping[str, Shape], stack: TextStack) -> dict[str, Site]:
    """Sites of the stack's layers, of the tensors beside it, and of the head above it."""
    sites = _layer_sites(stack)
    outside = {
        name: shape for name, shape in shapes.items() if name not in sites and naming.tower_of(name.split(".")) is None
    }
    tables = _tables(outside, stack)
    norms = _final_norms(outside, stack)
    for name in outside:
        module, ending = naming.split_leaf(name)
        if module in tables:
            sites[name] = Site("text", None, tables[module] + ending)
        elif module in norms:
            sites[name] = Site("text", None, "norm.final" + ending)
        elif is_above(stack.root, tuple(name.split("."))):
            sites[name] = Site("text", None, _beside(name, stack))
    return sites


def _layer_sites(stack: TextStack) -> dict[str, Site]:
    """Sites of the stack's layers by the base's numbers; a layer that adaptation inserted keeps its own number."""
    sites: dict[str, Site] = {}
    known: dict[frozenset[tuple[str, int]], dict[str, str]] = {}
    layers = {}
    for number in sorted(stack.layers):
        # Most layers hold the same suffixes: one look-up for each kind of layer.
        kind = frozenset((suffix, len(shape)) for suffix, shape in stack.layers[number].items())
        if kind not in known:
            known[kind] = components(dict(kind))
        layers[number] = known[kind]
    inserted = _inserted(layers)
    place = 0
    for number, members in layers.items():
        layer, own = (None, number) if number in inserted else (place, None)
        place += own is None
        start = f"{stack.prefix}.{number}."
        for suffix, component in members.items():
            sites[start + suffix] = Site("text", layer, component, own)
    return sites


def components(suffixes: Mapping[str, int]) -> dict[str, str]:
    """Suffix -> component in one layer; two suffixes for which the tables give one component stay raw.

    suffixes: suffix -> number of dimensions; an MLP's matrix of three dimensions is a stack of experts.
    """
    modules = {suffix.split(".")[0] for suffix in suffixes}
    found = {}
    for suffix, dimensions in suffixes.items():
        word = naming.component(suffix, modules)
        stacked = dimensions == 3 and word in ("mlp.gate", "mlp.up", "mlp.down", "mlp.gate_up")
        found[suffix] = word.replace("mlp.", "experts.") if stacked else word
    often = Counter(found.values())
    return {suffix: word if often[word] == 1 else f"raw:{suffix}" for suffix, word in found.items()}


def _inserted(layers: Mapping[int, Mapping[str, str]]) -> set[int]:
    """The numbers of layers that adaptation inserted: those with cross-attention in place of self-attention, among
    layers with self-attention (Llama 3.2 Vision)."""
    kinds = {number: {component.split(".")[0] for component in members.values()} for number, members in layers.items()}
    crossed = {number for number, kind in kinds.items() if "cross_attn" in kind and "attn" not in kind}
    return crossed if any("attn" in kind for kind in kinds.values()) else set()


def _tables(outside: Mapping[str, Shape], stack: TextStack) -> dict[str, str]:
    """Module -> component of the tables with a row per token. Tables under unknown names are left out where a known
    name has the same component, and as heads where the config ties the head to the embedding."""
    found = {
        naming.split_leaf(name)[0]: _table_component(name, stack)
        for name, shape in outside.items()
        if stack.is_table(name, shape) and not naming.BRIDGES & {*naming.module_word(name).split("_")}
    }
    words = naming.EMBEDS | naming.HEADS | naming.POSITIONS
    known = {kind for module, kind in found.items() if module.rpartition(".")[2] in words}
    known |= {"head"} if stack.tied else set()
    return {
        module: kind
        for module, kind in found.items()
        if kind not in known or module.rpartition(".")[2] in words | naming.NEW_ROWS
    }


def _table_component(name: str, stack: TextStack) -> str:
    """The component of a table with a row per token: by its name, else by its place."""
    module = naming.module_word(name)
    if module in naming.HEADS:
        return "head"
    if module in naming.POSITIONS:
        return "pos_embed"
    if module in naming.NEW_ROWS:
        return "embed.new"
    return "embed" if module in naming.EMBEDS or parent(name) == stack.root else "head"


def _final_norms(outside: Mapping[str, Shape], stack: TextStack) -> set[str]:
    """The module of the final norm: beside the stack, as wide as the stream, and under a known name or the only one."""
    beside = {
        naming.split_leaf(name)[0]
        for name, shape in outside.items()
        if shape == (stack.width,) and name.endswith(".weight") and parent(name) == stack.root
    }
    known = {module for module in beside if module.rpartition(".")[2] in naming.FINAL_NORMS}
    return known or (beside if len(beside) == 1 else set())


def _beside(name: str, stack: TextStack) -> str:
    suffix = ".".join(name.split(".")[len(stack.root) :])
    module, ending = naming.split_leaf(suffix)
    if module.rpartition(".")[2] in naming.NEW_ROWS:
        return "embed.new" + ending
    return "pos_embed" + ending if module in naming.POSITIONS else f"raw:{suffix}"


def _tower_sites(names: list[str], tower: Tower) -> dict[str, Site]:
    """Sites outside of the text tower, by the path below the tower's own name, which both layouts share.

    A vision or audio tower with one numbered container gets layers and components as the text has; all other tensors
    keep their path as raw component.
    """
    paths = _paths(names, tower)
    stacks = {prefix for prefix in numbered(paths.values()) if not any(part.isdecimal() for part in prefix.split("."))}
    sites = {name: Site(tower, None, f"raw:{path}") for name, path in paths.items()}
    if tower not in ("vision", "audio") or len(stacks) != 1:
        return sites
    start = len(stacks.pop().split("."))
    members: dict[int, dict[str, str]] = {}
    for name, path in paths.items():
        parts = path.split(".")
        if len(parts) > start + 1 and parts[start].isdecimal():
            members.setdefault(int(parts[start]), {})[".".join(parts[start + 1 :])] = name
    layered = {
        suffixes[suffix]: Site(tower, number, naming.component(word, ()))
        for number, suffixes in members.items()
        for suffix, word in naming.count_from_one(suffixes).items()
    }
    # Two suffixes for which the tables give one component stay raw.
    return sites | layered if len(set(layered.values())) == len(layered) else sites


def _paths(names: list[str], tower: Tower) -> dict[str, str]:
    """Name -> path below the tower: without wrappers, repeated words of the tower ("vision_tower.vision_model"), and a
    first segment that all share."""
    paths: dict[str, list[str]] = {}
    for name in names:
        segments = name.split(".")
        while len(segments) > 1 and segments[0] in WRAPPERS:
            segments = segments[1:]
        kept = [
            segment
            for place, segment in enumerate(segments)
            if not (place and naming.tower_of([segment]) == naming.tower_of([segments[place - 1]]) == tower)
        ]
        paths[name] = kept
    if len({path[0] for path in paths.values()}) == 1 and all(len(path) > 1 for path in paths.values()):
        paths = {name: path[1:] for name, path in paths.items()}
    joined = {name: ".".join(path) for name, path in paths.items()}
    return joined if len(set(joined.values())) == len(joined) else {name: name for name in names}
