"""What transformers takes for settings of a language model that a config leaves out."""

from collections.abc import Mapping
from typing import Any, Final

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
    "mistral": {**_LLAMA, "sliding_window": 4096},
    "mixtral": {**_LLAMA, "rope_theta": 1000000, "norm_eps": 1e-5},
    "qwen2": {**_LLAMA, "max_position_embeddings": 32768},
    "qwen2_vl": {**_QWEN_VL, "max_position_embeddings": 32768},
    "qwen2_5_vl": {**_QWEN_VL, "max_position_embeddings": 32768},
    "qwen3": {**_LLAMA, "head_dim": 128},
    "gemma": {**_GEMMA, "max_position_embeddings": 8192},
    "gemma2": {**_GEMMA, **_CAPPED, "max_position_embeddings": 8192},
    "phi3": {**_LLAMA, "norm_eps": 1e-5, "max_position_embeddings": 4096},
    "granite": {**_LLAMA, "embedding_scale": 1, "residual_scale": 1, "attention_scale": 1, "logit_scale": 1},
}

# Settings -> the types that have another value than the common one, which their configs always state.
NOT_PRESUMED: Final[Mapping[str, frozenset[str]]] = {
    "sliding_window": frozenset({
        "afmoe", "aya_vision", "beam", "cohere2", "cohere2_moe", "cohere2_vision", "cohere_compass", "cwm",
        "deepseek_v4", "diffusion_gemma", "dots1", "dots3_note", "embedding_gemma2", "exaone4", "exaone4_5",
        "exaone_moe", "flint", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "gemma4_unified_assistant",
        "gpt_oss", "granite_swa", "granitemoe_swa", "idefics2", "kolibri1", "kyutai_speech_to", "laguna", "lfm3",
        "lfm3_vl", "mellum", "mimo_v2_flash", "ministral", "mistral_large4", "modernbert-decoder", "moshi",
        "muse_glimmer", "muse_spark", "olmo3", "shieldgemma2", "t5gemma2", "unlimited_ocr", "vaultgemma",
        "voxtral_realtime",
    }),
    "rope_scaling": frozenset({
        "apertus", "cwm", "diffusion_gemma", "gemma4", "gemma4_unified", "gemma4_unified_assistant", "gpt_oss", "lfm3",
        "lfm3_vl", "ministral3", "mistral4", "mistral_large4",
    }),
    "final_softcap": frozenset({
        "beam", "embedding_gemma2", "gemma3n", "gemma4", "gemma4_unified", "inkling2", "mistral_large4",
        "muse_glimmer", "muse_spark", "nanochat", "vaultgemma",
    }),
    "attention_softcap": frozenset({"embedding_gemma2", "vaultgemma"}),
    "qk_norm": frozenset({"fuyu", "llama4", "persimmon"}),
    "attention_bias": frozenset({
        "glm", "glm4", "glm4v_moe", "glm_image", "gpt_neox", "gpt_oss", "jais2", "qwen2_moe", "seed_oss",
    }),
    "mlp_bias": frozenset({"jais2"}),
}  # fmt: skip

_TABLED: Final = frozenset(DEFAULTS).union(*NOT_PRESUMED.values())

# The types whose layers have as many key-value heads as heads where a config names no number; others have one of their
# own.
_AS_MANY_KV_HEADS: Final = frozenset({
    "", "cohere", "cohere2", "falcon", "gpt2", "gpt_neox", "granite", "granitemoe", "llama", "mpt", "nemotron", "olmo",
    "olmo2", "opt", "persimmon", "phi", "phi3",
})  # fmt: skip

# Gemma's layers that attend nearby have a theta of their own.
_LOCAL_THETAS: Final = {"gemma3": 10000, "gemma3n": 10000}


def presumed(model_type: str) -> dict[str, Any]:
    """Name of a setting -> what transformers takes for it where a config of that type leaves it out."""
    kind = _family(model_type)
    common = {name: value for name, value in COMMON_DEFAULTS.items() if kind not in NOT_PRESUMED.get(name, ())}
    return {**common, **DEFAULTS.get(kind, {})}


def has_as_many_kv_heads(model_type: str) -> bool:
    """Whether a config of that type that names no number of key-value heads means as many as heads."""
    return _family(model_type) in _AS_MANY_KV_HEADS


def local_theta(model_type: str) -> float | None:
    """theta of the layers that attend nearby, where the type has one of its own."""
    return _LOCAL_THETAS.get(_family(model_type))


def _family(model_type: str) -> str:
    """The type that a table knows: "llama" also for `llava_llama`, a type of its authors' own code."""
    kind = model_type.removesuffix("_text")
    last = kind.rpartition("_")[2]
    return last if kind not in _TABLED and last in DEFAULTS else kind
