"""Language models without pictures, for any role: one of each kind of block, state, position and name."""

from collections.abc import Mapping
from typing import Any

from families.entries import TEXT, Parts, Words, family
from families.tokens import CHATML
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

MOE = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1, "num_key_value_heads": 4,
}  # fmt: skip
STATE = {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16, "expand": 2}
MAMBA = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2,
    "mamba_d_conv": 4, "mamba_chunk_size": 16,
}  # fmt: skip
OLD = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 2048}
LINEAR = {
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip

# Name -> the model type of its config, and what this has beside the sizes of `TEXT`.
TEXTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "GPT-2": ("gpt2", OLD),
    "GPT-J": ("gptj", {**OLD, "rotary_dim": 8}),
    "GPT-NeoX": ("gpt_neox", {}),
    "OPT": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2}),
    "BLOOM": ("bloom", {"n_layer": 4, "n_head": 4}),
    "Falcon": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "MPT": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 2048}),
    "Phi": ("phi", {}),
    "Phi-3": ("phi3", {}),
    "StarCoder 2": ("starcoder2", {}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo Hybrid": ("olmo_hybrid", LINEAR),
    "Gemma 2": ("gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "Command R": ("cohere", {}),
    "Mixtral": ("mixtral", MOE),
    "gpt-oss": ("gpt_oss", {**MOE, "head_dim": 8, "sliding_window": 16}),
    "DeepSeek-V3": ("deepseek_v3", {**MOE, **LATENT}),
    "Qwen3-Next": ("qwen3_next", {**MOE, **LINEAR, "head_dim": 16, "shared_expert_intermediate_size": 24}),
    "Granite MoE": ("granitemoe", MOE),
    "Granite 4": (
        "granitemoehybrid", {**MAMBA, **MOE, "layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 24},
    ),
    "Falcon-H1": ("falcon_h1", {**MAMBA, "mamba_d_ssm": 64, "head_dim": 8}),
    "Jamba": (
        "jamba",
        {**MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
         "num_experts": 4, "use_mamba_kernels": False, "mamba_dt_rank": 4},
    ),
    "Mamba": ("mamba", STATE),
    "Mamba 2": ("mamba2", STATE),
    "RWKV": ("rwkv", {"attention_hidden_size": 32}),
    "RecurrentGemma": ("recurrent_gemma", {"head_dim": 8, "lru_width": 32, "attention_window_size": 64}),
}  # fmt: skip
BEGIN_BEHIND = ("mamba", "mamba2", "rwkv")  # transformers' hidden states begin behind their first block


def _enter(name: str, kind: str, settings: Mapping[str, Any]) -> None:
    @family(name, style=CHATML, sees=False, first_state=0 if kind in BEGIN_BEHIND else 1)
    def parts(words: Words) -> Parts:
        return Parts(CONFIG_MAPPING[kind](**{**TEXT, "vocab_size": words.rows, **settings}))


for _name, (_kind, _settings) in TEXTS.items():
    _enter(_name, _kind, _settings)
