"""A GGUF file becomes the model that it was made from, as far as its quantisation kept it."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from vlsurgery.probes.models.gguf import convert
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, TargetError

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
HEADS, KV_HEADS = 4, 2


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        rms_norm_eps=1e-5,
        rope_theta=5e4,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def written(model: LlamaForCausalLM, file: Path, kind: gguf.GGMLQuantizationType) -> Path:
    """The model as llama.cpp stores it: its own names, and rotated pairs side by side in queries and keys."""
    config = model.config
    out = gguf.GGUFWriter(file, "llama")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(["<unk>", "<s>", "</s>", *"abcdefghijkl", "ab"])
    out.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 13)
    out.add_token_merges(["a b"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, tensor in model.state_dict().items():
        data = tensor.numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
            if part in name:
                data = data.reshape(heads, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        stored = kind if data.ndim > 1 else gguf.GGMLQuantizationType.F32
        out.add_tensor(_name(name), gguf.quants.quantize(np.ascontiguousarray(data), stored), raw_dtype=stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def _name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    layer, _, part = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{PARTS[part.removesuffix('.weight')]}.weight"


def test_an_unquantised_file_is_the_very_model(model: LlamaForCausalLM, tmp_path: Path) -> None:
    file = written(model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    made = convert(file, tmp_path / "out", "float32")
    assert made.rounding == 0
    assert made.bits == 32
    assert made.stored == {"F32": sum(each.numel() for each in model.parameters())}
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    ids = torch.tensor([[1, 5, 9, 4]])
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=0, atol=1e-6)
    assert again.config.rms_norm_eps == 1e-5
    assert "quantization_config" not in again.config.to_dict()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer("abc")["input_ids"]).endswith("abc")
    assert tokenizer.chat_template
    assert Checkpoint.open(tmp_path / "out").quantised is None
    assert made.sentence().endswith("written in float32. Nothing is lost by that.")


def test_a_quantised_file_has_its_dequantised_weights_rounded_once(model: LlamaForCausalLM, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    made = convert(written(model, tmp_path / "tiny.gguf", kind), tmp_path / "out")
    assert "Q8_0" in made.stored
    assert 8 < made.bits < 9
    weight = "model.layers.1.mlp.down_proj.weight"
    expected = gguf.quants.dequantize(gguf.quants.quantize(model.state_dict()[weight].numpy(), kind), kind)
    assert torch.equal(Checkpoint.open(tmp_path / "out")[weight].load(), torch.from_numpy(expected).bfloat16())
    assert 0 < made.rounding < 2**-8  # the most that rounding to eight bits of mantissa changes a number by
    assert "can't be given back" in made.sentence()


def test_what_is_no_gguf_or_is_cut_off_is_named_and_leaves_nothing(model: LlamaForCausalLM, tmp_path: Path) -> None:
    file = written(model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    whole = file.read_bytes()
    other = tmp_path / "other.gguf"
    for content in (b"", b"PK\x03\x04 something", whole[:40], whole[: len(whole) // 2]):
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"other\.gguf"):
            convert(other, tmp_path / "out")
    with pytest.raises(CheckpointError, match="can't be read"):
        convert(tmp_path / "absent.gguf", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.gguf", "tiny.gguf"]


def test_a_directory_that_is_there_is_left_alone(model: LlamaForCausalLM, tmp_path: Path) -> None:
    file = written(model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(TargetError, match="is there already"):
        convert(file, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
