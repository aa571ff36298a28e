"""A GGUF file becomes the model that it was made from, as far as its quantisation kept it: the checkpoint that
transformers would save, byte for byte, whoever makes its shards and whatever is interrupted on the way."""

import json
import os
import pickle
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig

from vlsurgery.probes.models.gguf import convert, shard_maker, source
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, SurgeryError, TargetError
from vlsurgery.surgery.runtime.engine import InProcess

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
Q8 = gguf.GGMLQuantizationType.Q8_0
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
# Bytes of a shard of which the model has three, and "60KB" for transformers.
SHARD_BYTES, SHARDS = 60_000, 3


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
    out = begun(file, "llama", model.config)
    out.add_rope_freq_base(model.config.rope_parameters["rope_theta"])
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        data = tensor.numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
            if part in name:
                data = data.reshape(heads, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        stored = kind if data.ndim > 1 else gguf.GGMLQuantizationType.F32
        out.add_tensor(_name(name), gguf.quants.quantize(np.ascontiguousarray(data), stored), raw_dtype=stored)
    return ended(out, file)


def begun(file: Path, architecture: str, config: Any) -> gguf.GGUFWriter:
    """A file with the settings of a model and a small tokenizer, without tensors."""
    out = gguf.GGUFWriter(file, architecture)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(["<unk>", "<s>", "</s>", *"abcdefghijk", "ab", "bc"])
    out.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 13)
    out.add_token_merges(["a b", "b c"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    return out


def ended(out: gguf.GGUFWriter, file: Path) -> Path:
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


def test_a_gguf_that_is_too_old_is_named_with_the_version_that_the_extra_asks_for(
    model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    (oldest,) = re.findall(r'^gguf = \["gguf>=(.+)"\]$', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.setattr(source, "version", lambda _: "0.10.0")
    with pytest.raises(CheckpointError, match=rf"tiny\.gguf: .* gguf {re.escape(oldest)} or newer, and 0\.10\.0 is"):
        convert(file, tmp_path / "out")
    monkeypatch.setattr(source, "version", lambda _: oldest)
    convert(file, tmp_path / "out")


def test_a_directory_that_is_there_is_left_alone(model: LlamaForCausalLM, tmp_path: Path) -> None:
    file = written(model, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(TargetError, match="is there already"):
        convert(file, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved_by_transformers(file: Path, out: Path, size: str) -> dict[str, bytes]:
    """The weights and their index that transformers saves of the model that it reads from the file, in bfloat16."""
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    model = type(read)(type(read.config)(**settings))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size=size)
    return {name: text for name, text in contents(out).items() if name.startswith("model")}


@dataclass(frozen=True)
class Elsewhere(InProcess):
    """Does the items from the last to the first, each as a process does that is new and is sent its work. after: how
    many are done before the driver is killed. act: is called before each."""

    after: int = -1
    act: Callable[[], None] = lambda: None

    def map(self, set_up: Any, items: Sequence[Any]) -> Generator[Any, None, None]:
        for number, item in enumerate(list(items)[::-1]):
            if number == self.after:
                raise KeyboardInterrupt
            self.act()
            yield from pickle.loads(pickle.dumps(set_up))()(item)


@pytest.fixture
def file(model: LlamaForCausalLM, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return written(model, tmp_path / "in" / "tiny.gguf", Q8)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("size", "nbytes", "shards"), [("5GB", 5 * 10**9, 1), ("60KB", SHARD_BYTES, SHARDS)])
def test_weights_and_index_are_those_that_transformers_saves(
    model: LlamaForCausalLM, tmp_path: Path, tied: bool, size: str, nbytes: int, shards: int
) -> None:
    if tied:
        torch.manual_seed(1)
        model = LlamaForCausalLM(LlamaConfig.from_dict(model.config.to_dict() | {"tie_word_embeddings": True}))
    wanted = saved_by_transformers(written(model, tmp_path / "tiny.gguf", Q8), tmp_path / "wanted", size)
    convert(tmp_path / "tiny.gguf", tmp_path / "out", max_shard_bytes=nbytes)
    found = contents(tmp_path / "out")
    assert {name: text for name, text in found.items() if name.startswith("model")} == wanted
    assert len([name for name in wanted if name.endswith(".safetensors")]) == shards
    assert json.loads(found["config.json"])["tie_word_embeddings"] is tied


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_rows_are_dequantised_alone_as_they_are_together(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    made = convert(file, tmp_path / "whole")
    monkeypatch.setattr(shard_maker, "PIECE_SIZE", size)
    again = convert(file, tmp_path / "rows")
    assert contents(tmp_path / "rows") == contents(tmp_path / "whole")
    assert again.rounding == pytest.approx(made.rounding, rel=1e-9)


def test_bytes_are_those_of_one_process_whoever_makes_the_shards(file: Path, tmp_path: Path) -> None:
    alone = convert(file, tmp_path / "alone", max_shard_bytes=SHARD_BYTES)
    divided = convert(file, tmp_path / "divided", engine=Elsewhere(), max_shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "divided") == contents(tmp_path / "alone")
    assert replace(divided, out=alone.out) == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "divided", "in"]


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("engine", [None, Elsewhere()], ids=["here", "workers"])
def test_a_killed_driver_is_resumed_behind_the_last_shard(
    file: Path, tmp_path: Path, after: int, engine: Elsewhere | None
) -> None:
    wanted = convert(file, tmp_path / "wanted", max_shard_bytes=SHARD_BYTES)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(KeyboardInterrupt):
        convert(file, out, engine=Elsewhere(after=after), max_shard_bytes=SHARD_BYTES)
    done = {path.name: path.stat().st_ino for path in partial.glob("*.safetensors")}
    assert len(done) == after
    assert not out.exists()
    left = next(path.name for path in (tmp_path / "wanted").glob("*.safetensors") if path.name not in done)
    (partial / f"{left}.0123456789abcdef.partial").write_bytes(b"half")
    notes: list[str] = []
    made = convert(file, out, note=notes.append, engine=engine, max_shard_bytes=SHARD_BYTES)
    assert contents(out) == contents(tmp_path / "wanted")
    assert {name: (out / name).stat().st_ino for name in done} == done
    assert made.rounding == wanted.rounding
    assert any(f"{after} of {SHARDS} shards were finished before" in note for note in notes)
    assert not partial.exists()


def test_what_another_order_left_is_not_taken(file: Path, tmp_path: Path) -> None:
    convert(file, tmp_path / "wanted", "float16", max_shard_bytes=SHARD_BYTES)
    with pytest.raises(KeyboardInterrupt):
        convert(file, tmp_path / "out", engine=Elsewhere(after=1), max_shard_bytes=SHARD_BYTES)
    convert(file, tmp_path / "out", "float16", max_shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


def test_a_file_that_changes_meanwhile_is_noticed(file: Path, tmp_path: Path) -> None:
    def touch() -> None:
        os.utime(file, ns=(1, 1))

    for engine in (Elsewhere(act=touch), _TouchedWhileWorking(file)):
        with pytest.raises(CheckpointError, match=r"tiny\.gguf: was written to"):
            convert(file, tmp_path / "out", engine=engine, max_shard_bytes=SHARD_BYTES)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


@dataclass(frozen=True)
class _TouchedWhileWorking(InProcess):
    """A worker that read the file before it was written to, and finishes its shard after."""

    file: Path

    def map(self, set_up: Any, items: Sequence[Any]) -> Generator[Any, None, None]:
        work = set_up()
        os.utime(self.file, ns=(2, 2))
        yield from work(items[0])


def test_a_worker_with_other_programs_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other() -> None:
        monkeypatch.setattr(shard_maker, "converters", lambda: "transformers 1.0, gguf 0.1")

    with pytest.raises(SurgeryError, match=r"worker has transformers 1\.0, gguf 0\.1, and the program transformers"):
        convert(file, tmp_path / "out", engine=Elsewhere(act=other))


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (float("nan"), "bfloat16", "NaN or infinite values"),
        (float("inf"), "float32", "NaN or infinite values"),
        (1e5, "float16", "values too large for float16. Give --dtype bfloat16"),
    ],
)
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float, dtype: str, said: str) -> None:
    broken = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, tie_word_embeddings=False))  # fmt: skip
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[3, 5] = value
    file = written(broken, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.F32)
    with pytest.raises(CheckpointError, match=f"tensor model.layers.0.mlp.down_proj.weight: {said}"):
        convert(file, tmp_path / "out", dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_tensor_that_is_missing_or_misshapen_is_named(model: LlamaForCausalLM, tmp_path: Path) -> None:
    """transformers would make up the one that is missing at random."""
    file = tmp_path / "tiny.gguf"
    for change, said in (
        (lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"), "holds no tensor for model.layers.1.mlp.up"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(63)}), r"needs? the shape \(64,\)"),
    ):
        weights = dict(model.state_dict())
        change(weights)
        out = begun(file, "llama", model.config)
        for name, tensor in weights.items():
            out.add_tensor(_name(name), tensor.numpy())
        ended(out, file)
        with pytest.raises(CheckpointError, match=said):
            convert(file, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_fused_experts_become_the_tensors_of_the_published_checkpoint(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=16,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    )
    model, width = AutoModelForCausalLM.from_config(config), config.moe_intermediate_size
    file = tmp_path / "moe.gguf"
    out = begun(file, "qwen3moe", config)
    out.add_key_length(16)
    out.add_value_length(16)
    out.add_expert_count(4)
    out.add_expert_used_count(2)
    parts = PARTS | {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate": "ffn_gate_inp"}
    for name, tensor in model.state_dict().items():
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        if part == "mlp.experts.gate_up_proj":
            for kind, half in zip(("gate", "up"), tensor.split(width, 1), strict=True):
                out.add_tensor(f"blk.{layer}.ffn_{kind}_exps.weight", half.contiguous().numpy())
        elif part == "mlp.experts.down_proj":
            out.add_tensor(f"blk.{layer}.ffn_down_exps.weight", tensor.numpy())
        else:
            stem = NAMES.get(name) or f"blk.{layer}.{parts[part.removesuffix('.weight')]}.weight"
            out.add_tensor(stem, tensor.numpy())
    ended(out, file)
    saved_by_transformers(file, tmp_path / "wanted", "5GB")
    convert(file, tmp_path / "out", max_shard_bytes=1_000_000)
    wanted, found = Checkpoint.open(tmp_path / "wanted"), Checkpoint.open(tmp_path / "out")
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in found
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name].load(), tensor.load()), name
    assert len(found.shards) > 1
