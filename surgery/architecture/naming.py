"""Tables of the names that models give to their parts: what structure alone cannot tell.

A name that is not listed keeps its own suffix (`raw:<suffix>`), and finds its partner by it, or by position and values
(`alignment.content_matching`). Support for another family of models is another entry here.
"""

import re
from collections.abc import Collection
from typing import Final, Literal

# Modules of a decoder layer that hold others -> first word of the component.
CONTAINERS: Final = {
    "self_attn": "attn", "attn": "attn", "attention": "attn", "self_attention": "attn",
    "cross_attn": "cross_attn", "encoder_attn": "cross_attn", "cross_attention": "cross_attn",
    "linear_attn": "linear_attn",
    "mlp": "mlp", "feed_forward": "mlp", "ffn": "mlp", "block_sparse_moe": "mlp", "moe": "mlp",
}  # fmt: skip

ATTENTION: Final = {
    "q_proj": "q", "query": "q", "wq": "q", "to_q": "q", "wq_du": "q",
    "k_proj": "k", "key": "k", "wk": "k", "to_k": "k", "wk_dv": "k",
    "v_proj": "v", "value": "v", "wv": "v", "to_v": "v", "wv_dv": "v",
    "o_proj": "o", "out_proj": "o", "dense": "o", "wo": "o", "proj": "o", "attn_out": "o", "to_out": "o", "wo_ud": "o",
    "qkv_proj": "qkv", "qkv": "qkv", "att_proj": "qkv", "Wqkv": "qkv", "wqkv": "qkv", "w_qkv": "qkv", "in_proj": "qkv",
    "query_key_value": "qkv",
    "q_norm": "q_norm", "q_layernorm": "q_norm", "norm_q": "q_norm", "query_layernorm": "q_norm",
    "k_norm": "k_norm", "k_layernorm": "k_norm", "norm_k": "k_norm", "key_layernorm": "k_norm",
}  # fmt: skip
FEED_FORWARD: Final = {
    "gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "fc1": "up", "dense_h_to_4h": "up",
    "down_proj": "down", "w2": "down", "fc2": "down", "dense_4h_to_h": "down", "ff_out": "down",
    "w2_md": "down", "shared_w2_weight": "down", "w2_weight": "down",
    "gate_up_proj": "gate_up", "ff_proj": "gate_up", "w13_dn": "gate_up", "w13_weight": "gate_up",
    "shared_w13_weight": "gate_up", "gate": "router", "router": "router",
}  # fmt: skip
PARTS: Final = {"attn": ATTENTION, "cross_attn": ATTENTION, "linear_attn": {}, "mlp": FEED_FORWARD}

# Containers of experts: one module an expert, or the matrices of all in one tensor.
EXPERTS: Final = frozenset({"experts"})
VISION_EXPERTS: Final = "vision_moe"
TEXT_EXPERTS: Final = "text_moe"
SHARED_EXPERTS: Final = frozenset({"shared_experts", "shared_expert", "share_expert"})
STACKED: Final = {"fc1": "gate_up", "fc2": "down", "input_linear": "gate_up", "output_linear": "down"}

# Fused projections: module -> its parts in the order of their rows, contiguous. `query_key_value` is missing: its rows
# are interleaved by head, in several orders.
FUSED: Final = {
    "qkv_proj": ("q", "k", "v"), "qkv": ("q", "k", "v"), "att_proj": ("q", "k", "v"), "Wqkv": ("q", "k", "v"),
    "wqkv": ("q", "k", "v"), "w_qkv": ("q", "k", "v"), "in_proj": ("q", "k", "v"), "in_proj_weight": ("q", "k", "v"),
    "in_proj_bias": ("q", "k", "v"),
    "gate_up_proj": ("gate", "up"), "input_linear": ("gate", "up"), "ff_proj": ("up", "gate"),
    "up_gate_proj": ("up", "gate"), "weights_in": ("gate", "up"), "w12": ("gate", "up"), "w13_weight": ("gate", "up"),
    "shared_w13_weight": ("gate", "up"), "w13_dn": ("gate", "up"),
}  # fmt: skip

# Fused modules with interleaved rows: the first of gate, the first of up, the second of gate, ...
IN_TURNS: Final = frozenset({"w13_weight", "shared_w13_weight", "w13_dn"})

# Modules directly in a layer. `post_attention_layernorm`, on which families disagree, is left to `component`.
DIRECT: Final = {
    "input_layernorm": "norm.attn", "attention_norm": "norm.attn", "layer_norm1": "norm.attn", "norm1": "norm.attn",
    "self_attn_layer_norm": "norm.attn", "ln_1": "norm.attn", "attn_norm": "norm.attn",
    "ffn_norm": "norm.mlp", "layer_norm2": "norm.mlp", "norm2": "norm.mlp", "final_layer_norm": "norm.mlp",
    "ln_2": "norm.mlp", "pre_feedforward_layernorm": "norm.mlp", "ff_norm": "norm.mlp", "mlp_norm": "norm.mlp",
    "post_self_attn_layernorm": "norm.attn_post",
    "post_feedforward_layernorm": "norm.mlp_post", "post_mlp_layernorm": "norm.mlp_post",
    "fc1": "mlp.up", "fc2": "mlp.down",
}  # fmt: skip
AMBIGUOUS_NORM: Final = "post_attention_layernorm"
FEEDFORWARD_NORMS: Final = ("pre_feedforward_layernorm", "post_feedforward_layernorm")

EMBEDS: Final = frozenset(
    {"embed_tokens", "wte", "tok_embeddings", "word_embeddings", "embed", "embed_in", "embedding"}
)
# Tables of the rows that adaptation appended to the vocabulary.
NEW_ROWS: Final = frozenset({"new_embedding"})
SPLIT_TABLE: Final = ".wte.embedding"
# Words of modules that lead from tower to tower: such a matrix is no head, however many rows it has.
BRIDGES: Final = frozenset({"mm", "proj", "multimodal", "adapter", "resampler", "bridge", "abstractor"})
HEADS: Final = frozenset({"lm_head", "embed_out", "output", "unembed", "head"})
POSITIONS: Final = frozenset({"embed_positions", "wpe", "position_embeddings", "position_embedding", "pos_embed"})
FINAL_NORMS: Final = frozenset({"norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f"})

# Parameters that some layouts name by a letter.
ABBREVIATED: Final = {"b": "bias", "s": "scale"}

NamedTower = Literal["projector", "audio", "vision"]

# Words (between underscores) that name a tower. Projectors come first: one may lie inside the vision tower.
TOWER_WORDS: Final[dict[NamedTower, frozenset[str]]] = {
    "projector": frozenset({"projector", "connector", "merger", "aligner"}),
    "audio": frozenset({"audio", "speech", "sound"}),
    "vision": frozenset({"vision", "visual", "image", "img", "vit", "siglip", "clip", "vqmodel"}),
}

# Segments that training frameworks put into names: torch.compile, FSDP, DDP, PEFT, activation checkpointing, Lightning.
TRAINING_WRAPPERS: Final = (
    "_orig_mod", "_fsdp_wrapped_module", "module", "base_layer", "_checkpoint_wrapped_module", "_forward_module",
)  # fmt: skip
_WRAPPER: Final = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(TRAINING_WRAPPERS)})\.")

# Prefix of the language model in the Hub's names -> in module names. One file can hold both.
LEGACY_PREFIXES: Final = {"language_model.model.": "model.language_model.", "text_model.model.": "model.text_model."}

# Keys of a language model's config within a multimodal one.
TEXT_CONFIGS: Final = ("thinker_config", "text_config", "llm_config", "language_config")
LAYER_COUNTS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTHS: Final = ("hidden_size", "n_embd", "d_model", "dim")
INNER: Final = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")


def unwrapped(name: str) -> str:
    """A name without the segments that training frameworks put into it: "model.layers.0.mlp.up_proj.weight" for
    "module.model.layers.0._orig_mod.mlp.up_proj.weight"."""
    return _WRAPPER.sub("", name)


def split_leaf(suffix: str) -> tuple[str, str]:
    """A tensor's name as its module and the ending of its component: "" or ".bias".

    A parameter that is neither `weight` nor `bias` counts as a module.
    """
    module, _, leaf = suffix.rpartition(".")
    if leaf == "weight":
        return module, ""
    if leaf == "bias":
        return module, ".bias"
    return suffix, ""


def module_word(name: str) -> str:
    """The last word of a tensor's module: "qkv_proj" for "model.layers.0.self_attn.qkv_proj.weight"."""
    return split_leaf(unwrapped(name))[0].rpartition(".")[2]


def component(suffix: str, layer: Collection[str]) -> str:
    """The component (SCHEMAS, "Names") of a tensor in a layer.

    suffix: its name behind the layer's number, "self_attn.q_proj.weight". layer: the top-level modules of
        that layer, because `post_attention_layernorm` comes before the MLP in most models, and after
        attention in those that also have norms around the MLP (Gemma, OLMo 2).
    """
    module, ending = split_leaf(suffix)
    if module == AMBIGUOUS_NORM:
        around = any(name in layer for name in FEEDFORWARD_NORMS)
        return ("norm.attn_post" if around else "norm.mlp") + ending
    if module in DIRECT:
        return DIRECT[module] + ending
    container, *path = module.split(".")
    kind = CONTAINERS.get(container)
    if container in EXPERTS | SHARED_EXPERTS:
        path = [container, *path]
    if kind == "mlp" or (kind is None and (EXPERTS | SHARED_EXPERTS) & {*path}):
        return _feed_forward(path, ending) or f"raw:{suffix}"
    part = path[0] if len(path) == 1 else None
    return f"{kind}.{PARTS[kind][part]}{ending}" if kind and part in PARTS[kind] else f"raw:{suffix}"


def _feed_forward(path: list[str], ending: str) -> str | None:
    """The component of a tensor in an MLP, in one of its experts, or of all its experts at once."""
    moe = path[0] if path and path[0] in (TEXT_EXPERTS, VISION_EXPERTS) else None
    path = path[1:] if moe else path
    word = "vision_expert" if moe == VISION_EXPERTS else "expert"
    match path:
        case ["experts", number, part] if number.isdecimal() and part in FEED_FORWARD:
            return f"{word}.{int(number)}.{FEED_FORWARD[part]}{ending}"
        case ["experts", part] if part in FEED_FORWARD or part in STACKED:
            return f"{word}s.{STACKED.get(part) or FEED_FORWARD[part]}{ending}"
        case [shared, part] if shared in SHARED_EXPERTS and part in FEED_FORWARD:
            return f"expert.shared.{FEED_FORWARD[part]}{ending}"
        case [*_, "e_score_correction_bias"] | ["router_bias"]:
            return f"{'vision_router' if moe == VISION_EXPERTS else 'mlp.router'}.correction"
        case ["gate", "weight_1"]:
            return f"vision_router{ending}"
        case ["gate"] if moe == VISION_EXPERTS:
            return f"vision_router{ending}"
        case [part] if part in FEED_FORWARD and moe != VISION_EXPERTS:
            return f"mlp.{FEED_FORWARD[part]}{ending}"
    return None


def count_from_one(suffixes: Collection[str]) -> dict[str, str]:
    """Suffix -> suffix for `component`, in one layer: norms and projections that are numbered from 0 ("norm0", "norm1")
    are renumbered from 1, as other models have them."""
    modules = {split_leaf(suffix)[0] for suffix in suffixes}

    def counted(suffix: str) -> str:
        module = split_leaf(suffix)[0]
        found = _COUNTED.search(module)
        if found is None or f"{module[: found.start(1)]}0" not in modules:
            return suffix
        return f"{module[: found.start(1)]}{int(found[1]) + 1}{suffix[len(module) :]}"

    return {suffix: counted(suffix) for suffix in suffixes}


def block_kind(component_name: str) -> str:
    """The block of its layer that a component acts in: "attn", "mlp", or "other" where it is of neither.

    A norm belongs to the block that it feeds, or, when it comes after one, to that.
    """
    if component_name.startswith("raw:"):
        component_name = CONTAINERS.get(component_name[4:].split(".")[0], "")
    word, _, rest = component_name.partition(".")
    if word == "norm":
        word = rest.split(".")[0].removesuffix("_post")
    if word in ("attn", "cross_attn", "linear_attn"):
        return "attn"
    experts = ("expert", "experts", "vision_expert", "vision_experts", "vision_router")
    return "mlp" if word == "mlp" or word in experts else "other"


def block_beside(component_name: str) -> str:
    """The block of a component of the language model outside of its layers: "embed", "head" or "norm"; "embed" for what
    is neither of the others, as tables and projections that feed the layers are (positions, per-layer embeddings)."""
    word = component_name.removeprefix("raw:")
    if word.split(".")[0] in ("embed", "head", "norm"):
        return word.split(".")[0]
    if _ABOVE.search(word):
        return "head"
    return "norm" if _NORM.search(word) and not _BELOW.search(word) else "embed"


# Words in the names of what stands behind the layers, of norms, and of what stands before them.
_ABOVE: Final = re.compile(r"(?:^|[._])(?:unembed\w*|\w*head|logits?|final\w*|mtp)(?:[._]|$)")
_NORM: Final = re.compile(r"norm")
_BELOW: Final = re.compile(r"embed|per_layer|input")


def tower_of(segments: Collection[str]) -> NamedTower | None:
    """The tower that a word of a path names, or None."""
    words = {word for segment in segments for word in segment.split("_")}
    for tower, names in TOWER_WORDS.items():
        if words & names:
            return tower
    return None


def pattern(name: str) -> tuple[str, tuple[int, ...]]:
    """A name with "*" for its numbers, and the numbers: the tensors of all layers share a pattern."""
    if not _DIGIT.search(name):
        return name, ()
    segments = name.split(".")
    numbers = tuple(int(segment) for segment in segments if segment.isdecimal())
    return ".".join("*" if segment.isdecimal() else segment for segment in segments), numbers


_DIGIT: Final = re.compile(r"\d")

# Modules that some models number from 0, and others from 1.
_COUNTED: Final = re.compile(r"(?<![^.])(?:norm|fc)([0-9])$")
