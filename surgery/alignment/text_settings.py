"""What a config says of its language model beyond shapes: settings under which the same weights compute otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from vlsurgery.surgery.architecture import naming


class Setting(NamedTuple):
    """A setting of the language model. keys: what configs call it. meaning: what a difference does."""

    keys: tuple[str, ...]
    meaning: str


_ROTARY: Final = "Positions are turned by other angles, so queries and keys were trained for other distances."
_HEADS: Final = "The same rows of the attention's matrices belong to other heads."
_SCALE: Final = "Activations have another scale, which the weights were trained for."
_SHAPE: Final = "The MLP computes another function of the same weights."
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
        ("num_experts_per_tok", "moe_topk", "top_k_experts"), "Another number of experts answers each token."
    ),
    "expert_scaling": Setting(("norm_topk_prob",), "Experts' outputs are weighed otherwise."),
}

# What transformers takes for a key that a config leaves out, whatever the type.
COMMON_DEFAULTS: Final[Mapping[str, Any]] = {
    "rope_scaling": "none",
    "sliding_window": "none",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_softcap": "none",
    "final_softcap": "none",
    "qk_norm": False,
}

# The same for single types of language models, where their names and numbers differ.
_LLAMA: Final = {"rope_theta": 10000, "partial_rotary_factor": 1, "norm_eps": 1e-6, "activation": "silu"}
_QWEN_VL: Final = {**_LLAMA, "rope_theta": 1000000, "norm_eps": 1e-5}
_GEMMA: Final = {"rope_theta": 10000, "norm_eps": 1e-6, "activation": "gelu_tanh", "head_dim": 256}
_CAPPED: Final = {"sliding_window": 4096, "attention_softcap": 50, "final_softcap": 30, "attention_scale": 256}
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama": {**_LLAMA, "max_position_embeddings": 2048},
    "mistral": {**_LLAMA, "norm_eps": 1e-5, "sliding_window": 4096},
    "mixtral": {**_LLAMA, "rope_theta": 1000000, "norm_eps": 1e-5},
    "qwen2": {**_LLAMA, "max_position_embeddings": 32768},
    "qwen2_vl": {**_QWEN_VL, "max_position_embeddings": 32768},
    "qwen2_5_vl": {**_QWEN_VL, "max_position_embeddings": 32768},
    "qwen3": {**_LLAMA, "rope_theta": 1000000, "head_dim": 128},
    "gemma": {**_GEMMA, "max_position_embeddings": 8192},
    "gemma2": {**_GEMMA, **_CAPPED, "max_position_embeddings": 8192},
    "phi3": {**_LLAMA, "norm_eps": 1e-5, "max_position_embeddings": 4096},
    "granite": {**_LLAMA, "embedding_scale": 1, "residual_scale": 1, "attention_scale": 1, "logit_scale": 1},
}

# How deep the settings that mean something are nested; what is deeper in a file is left out.
MAX_DEPTH: Final = 4

# Two names of one function.
ACTIVATIONS: Final = {
    "swish": "silu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip

# Scalings that leave the positions of text as they are; Qwen-VL's turns pictures' alone.
_PLAIN_SCALINGS: Final = (None, "default", "mrope")


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
    known = {**COMMON_DEFAULTS, **DEFAULTS.get(_model_type(config, text), {})}
    stated = {name: _first(text, setting.keys) for name, setting in SETTINGS.items()}
    if "tie_word_embeddings" in config:
        stated["tie_word_embeddings"] = config["tie_word_embeddings"]
    if text.get("use_sliding_window") is False:
        stated["sliding_window"] = "none"
    if stated["attention_bias"] is not None and "no_bias" in text and "attention_bias" not in text:
        stated["attention_bias"] = not text["no_bias"]
    if isinstance(stated["activation"], str):
        stated["activation"] = ACTIVATIONS.get(stated["activation"], stated["activation"])
    theta, scaling, part = _rotary(text)
    stated |= {"rope_theta": theta, "rope_scaling": scaling}
    stated["partial_rotary_factor"] = part if part is not None else stated["partial_rotary_factor"]
    if "sliding_window" in text and text["sliding_window"] is None:
        stated["sliding_window"] = "none"
    found = {**known, **{name: _shallow(value) for name, value in stated.items() if value is not None}}
    return found | _heads(found, text)


def _first(text: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((text[key] for key in keys if text.get(key) is not None), None)


def _model_type(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """The type of the language model: "llama" also for `llava_llama`, a type of its authors' own code. A nested config
    without a type is Llama's in LLaVA."""
    stated = str(text.get("model_type") or ("llama" if text is not config else ""))
    names = [stated.removesuffix("_text"), *reversed(stated.split("_"))]
    return next((name for name in names if name in DEFAULTS), stated)


def _heads(found: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that follow from others where a config leaves them out."""
    heads, width = found.get("attention_heads"), _first(text, naming.WIDTHS)
    more: dict[str, Any] = {}
    if isinstance(heads, int) and heads > 0:
        if "kv_heads" not in found:
            more["kv_heads"] = 1 if text.get("multi_query") is True else heads
        if "head_dim" not in found and isinstance(width, int):
            more["head_dim"] = width // heads
    return more


def _rotary(text: Mapping[str, Any], kinds_apart: bool = True) -> tuple[Any, Any, Any]:
    """theta, scaling and the turned share of each head: one value each, or one per type of layer."""
    stated = text.get("rope_parameters")
    if kinds_apart and isinstance(stated, Mapping) and any(isinstance(each, Mapping) for each in stated.values()):
        kinds = {kind: each for kind, each in stated.items() if isinstance(each, Mapping)}
        parts = {kind: _rotary({"rope_parameters": each}, kinds_apart=False) for kind, each in kinds.items()}
        columns = [{kind: part[place] for kind, part in sorted(parts.items())} for place in range(3)]
        theta, scaling, share = (next(iter(c.values())) if _all_equal(c) else c for c in columns)
        return theta, scaling, share
    both = {**_mapping(text.get("rope_scaling")), **_mapping(stated)}
    theta = both.pop("rope_theta", None) or _first(text, SETTINGS["rope_theta"].keys)
    share = both.pop("partial_rotary_factor", None)
    kind = both.pop("rope_type", None) or both.pop("type", None)
    both.pop("type", None)
    local = text.get("rope_local_base_freq")
    scaling = _scaling(kind, both)
    if local is not None:
        theta = {"full_attention": theta, "sliding_attention": local}
        scaling = "none" if scaling == "none" else {"full_attention": scaling, "sliding_attention": "none"}
    stated_at_all = scaling != "none" or "rope_scaling" in text or stated is not None
    return theta, scaling if stated_at_all else None, share


def _scaling(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A rotary scaling as plain data; "none" for one that leaves positions as they are."""
    if kind in _PLAIN_SCALINGS or (kind == "linear" and settings.get("factor") == 1):
        return "none"
    return {"type": kind, **{key: value for key, value in sorted(settings.items()) if value is not None}}


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
