"""What a config says of its language model beyond shapes: settings under which the same weights compute otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from vlsurgery.surgery.alignment.setting_defaults import has_as_many_kv_heads, local_theta, presumed
from vlsurgery.surgery.architecture import naming


class Setting(NamedTuple):
    """A setting of the language model. keys: what configs call it. meaning: what a difference does."""

    keys: tuple[str, ...]
    meaning: str


_ROTARY: Final = "Positions are turned by other angles, so queries and keys were trained for other distances."
_HEADS: Final = "The same rows of the attention's matrices belong to other heads."
_SCALE: Final = "Activations have another scale, which the weights were trained for."
_SHAPE: Final = "The MLP computes another function of the same weights."
_EXPERTS: Final = "Experts' outputs are weighed otherwise."
_SPAN: Final = "Attention reaches another number of tokens back."

# Name of a mismatch -> the setting. The rotary ones are read by `_rotary`.
SETTINGS: Final[Mapping[str, Setting]] = {
    "rope_theta": Setting(("rope_theta", "rotary_emb_base"), _ROTARY),
    "rope_scaling": Setting(("rope_scaling",), _ROTARY),
    "partial_rotary_factor": Setting(("partial_rotary_factor", "rotary_pct"), _ROTARY),
    "norm_eps": Setting(
        ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
        "Norms add another constant; where activations are small, outputs change.",
    ),
    "activation": Setting(("hidden_activation", "hidden_act", "activation_function", "ffn_act_fn"), _SHAPE),
    "attention_heads": Setting(("num_attention_heads", "n_head", "n_heads"), _HEADS),
    "kv_heads": Setting(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), _HEADS),
    "head_dim": Setting(("head_dim", "kv_channels"), _HEADS),
    "sliding_window": Setting(("sliding_window",), _SPAN),
    "layer_types": Setting(("layer_types",), "Layers attend in another pattern (full, sliding or linear)."),
    "max_position_embeddings": Setting(
        ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
        "The longest text that each was made for differs; the result has that of the model it is like.",
    ),
    "attention_bias": Setting(("attention_bias", "qkv_bias", "no_bias"), "One adds biases that the other has not."),
    "mlp_bias": Setting(("mlp_bias",), "One adds biases that the other has not."),
    "tie_word_embeddings": Setting(
        ("tie_word_embeddings",), "One's head is its embedding; the other's was trained apart from it."
    ),
    "attention_scale": Setting(("query_pre_attn_scalar", "attention_multiplier"), _SCALE),
    "attention_softcap": Setting(("attn_logit_softcapping",), _SCALE),
    "final_softcap": Setting(("final_logit_softcapping",), _SCALE),
    "embedding_scale": Setting(("embedding_multiplier", "scale_emb", "scale_embedding"), _SCALE),
    "residual_scale": Setting(("residual_multiplier", "scale_depth"), _SCALE),
    "logit_scale": Setting(("logits_scaling", "logit_scale"), _SCALE),
    "qk_norm": Setting(("use_qk_norm", "qk_layernorm", "qk_norm"), _SCALE),
    "experts_per_token": Setting(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"),
        "Another number of experts answers each token.",
    ),
    "expert_scaling": Setting(("norm_topk_prob", "moe_renormalize"), _EXPERTS),
    "expert_factor": Setting(
        ("routed_scaling_factor", "moe_routed_scaling_factor", "route_scale", "router_scaling_factor"), _EXPERTS
    ),
    "expert_groups": Setting(("n_group", "num_expert_group"), "Experts are chosen from other groups."),
    "groups_per_token": Setting(("topk_group",), "Experts are chosen from other groups."),
    "expert_scoring": Setting(("scoring_func", "router_activation"), "Experts are chosen by another function."),
    "layers_without_rope": Setting(("no_rope_layers",), "Other layers know nothing of positions."),
    "rope_interleave": Setting(("rope_interleave",), _ROTARY),
    "rope_head_dim": Setting(("qk_rope_head_dim",), _HEADS),
    "value_head_dim": Setting(("v_head_dim",), _HEADS),
    "linear_key_heads": Setting(("linear_num_key_heads", "linear_num_heads"), _HEADS),
    "linear_value_heads": Setting(("linear_num_value_heads",), _HEADS),
    "state_space_heads": Setting(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), _HEADS),
    "mrope_section": Setting(("mrope_section",), "Positions in pictures are turned by other angles."),
    "attention_chunk": Setting(("attention_chunk_size",), _SPAN),
    "attention_temperature": Setting(("attn_temperature_tuning",), _SCALE),
    "bidirectional": Setting(("use_bidirectional_attention",), "Attention looks ahead in one of them."),
    "parallel_blocks": Setting(
        ("use_parallel_residual", "parallel_attn"), "Attention and MLP work side by side in one, in turn in the other."
    ),
    "mlp_limit": Setting(("swiglu_limit",), _SHAPE),
    "clip_qkv": Setting(("clip_qkv",), _SCALE),
    "head_scale": Setting(("lm_head_multiplier", "dim_model_base", "output_multiplier"), _SCALE),
    "key_scale": Setting(("key_multiplier",), _SCALE),
    "inverse_layer_scale": Setting(("scale_attn_by_inverse_layer_idx",), _SCALE),
}

# How deep the settings that mean something are nested; what is deeper in a file is left out.
MAX_DEPTH: Final = 4

# Two names of one function.
ACTIVATIONS: Final = {
    "swish": "silu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip

# Scalings that leave the positions of text as they are; Qwen-VL's turns pictures' alone. Two names of one scaling;
# those that scale from a length; and keys that are no part of a scaling.
_PLAIN_SCALINGS: Final = (None, "default", "mrope")
SCALINGS: Final = {"su": "longrope"}
_FROM_A_LENGTH: Final = ("yarn", "longrope")
_NO_SCALING: Final = ("rope_type", "type", "mrope_section", "mrope_interleaved")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that speaks of the language model: nested in one of a VL model, or all of it."""
    text = config
    for key in naming.TEXT_CONFIGS:
        if isinstance(text.get(key), Mapping):
            text = text[key]
    return text


def text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a setting -> its value, as plain data that can be compared; what no default is known for, and the config
    leaves out, is missing."""
    text = text_config(config)
    kind = _model_type(text, text is not config)
    known = presumed(kind)
    stated = {name: _first(text, setting.keys) for name, setting in SETTINGS.items()}
    stated["tie_word_embeddings"] = _ties(config, text)
    if text.get("use_sliding_window") is False:
        stated["sliding_window"] = "none"
    if stated["attention_bias"] is not None and "no_bias" in text and "attention_bias" not in text:
        stated["attention_bias"] = not text["no_bias"]
    if isinstance(stated["activation"], str):
        stated["activation"] = ACTIVATIONS.get(stated["activation"], stated["activation"])
    theta, scaling, part = _rotary(text, local_theta(kind))
    stated["mrope_section"] = _first(
        {**_mapping(text.get("rope_scaling")), **_mapping(text.get("rope_parameters"))}, ("mrope_section",)
    )
    stated |= {"rope_theta": theta, "rope_scaling": scaling}
    stated["partial_rotary_factor"] = part if part is not None else stated["partial_rotary_factor"]
    if "sliding_window" in text and text["sliding_window"] is None:
        stated["sliding_window"] = "none"
    found = {**known, **{name: _shallow(value) for name, value in stated.items() if value is not None}}
    return found | _heads(found, text, kind)


def _first(text: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((text[key] for key in keys if text.get(key) is not None), None)


def _ties(config: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    """Whether the head is the embedding; None where nothing says, or where a config and the one nested in it say
    otherwise, of which versions of transformers take one or the other."""
    said = [each["tie_word_embeddings"] for each in (config, text) if isinstance(each.get("tie_word_embeddings"), bool)]
    return said[0] if said and said[0] == said[-1] else None


def _model_type(text: Mapping[str, Any], nested: bool) -> str:
    """The type of the language model. A nested config without a type is Llama's in LLaVA."""
    return str(text.get("model_type") or ("llama" if nested else ""))


def _heads(found: Mapping[str, Any], text: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The numbers that follow from others where a config leaves them out."""
    heads, width = found.get("attention_heads"), _first(text, naming.WIDTHS)
    more: dict[str, Any] = {}
    if isinstance(heads, int) and heads > 0:
        if "kv_heads" not in found and (text.get("multi_query") is True or has_as_many_kv_heads(kind)):
            more["kv_heads"] = 1 if text.get("multi_query") is True else heads
        if "head_dim" not in found and isinstance(width, int):
            more["head_dim"] = width // heads
    return more


def _rotary(text: Mapping[str, Any], local: float | None, kinds_apart: bool = True) -> tuple[Any, Any, Any]:
    """theta, scaling and the turned share of each head: one value each, or one per type of layer.

    local: theta of layers that attend nearby, where the type has its own and the config leaves it out.
    """
    stated = text.get("rope_parameters")
    if kinds_apart and isinstance(stated, Mapping) and any(isinstance(each, Mapping) for each in stated.values()):
        kinds = {kind: {**text, "rope_parameters": each} for kind, each in stated.items() if isinstance(each, Mapping)}
        parts = {kind: _rotary(each, None, kinds_apart=False) for kind, each in kinds.items()}
        columns = [{kind: part[place] for kind, part in sorted(parts.items())} for place in range(3)]
        theta, scaling, share = (next(iter(c.values())) if _all_equal(c) else c for c in columns)
        return theta, scaling, share
    both = {**(_mapping(text.get("rope_scaling")) if kinds_apart else {}), **_mapping(stated)}
    theta = both.pop("rope_theta", None) or _first(text, SETTINGS["rope_theta"].keys)
    share = both.pop("partial_rotary_factor", None)
    scaling = _scaling(both, text)
    local = text.get("rope_local_base_freq", local) if kinds_apart else None
    if local is not None:
        theta = None if theta is None else {"full_attention": theta, "sliding_attention": local}
        scaling = "none" if scaling == "none" else {"full_attention": scaling, "sliding_attention": "none"}
    stated_at_all = scaling != "none" or "rope_scaling" in text or stated is not None
    return theta, scaling if stated_at_all else None, share


def _scaling(stated: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    """A rotary scaling as plain data; "none" for one that leaves positions as they are. The length that it scales from
    is the model's own where it is left out."""
    settings = {key: value for key, value in sorted(stated.items()) if key not in _NO_SCALING and value is not None}
    kind = stated.get("rope_type") or stated.get("type")
    kind = SCALINGS.get(kind, kind) if isinstance(kind, str) else kind
    if kind in _PLAIN_SCALINGS or (kind == "linear" and settings.get("factor") == 1):
        return "none"
    length = _first(text, ("original_max_position_embeddings", "max_position_embeddings"))
    if kind in _FROM_A_LENGTH and length is not None:
        settings.setdefault("original_max_position_embeddings", length)
    return {"type": kind, **dict(sorted(settings.items()))}


def _shallow(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The value with what is nested deeper than a setting can be left out, so that it can be compared and shown."""
    if isinstance(value, Mapping):
        return {str(key): _shallow(each, depth - 1) for key, each in value.items()} if depth else "..."
    if isinstance(value, list):
        return [_shallow(each, depth - 1) for each in value] if depth else "..."
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _all_equal(values: Mapping[str, Any]) -> bool:
    first = next(iter(values.values()))
    return all(value == first for value in values.values())
