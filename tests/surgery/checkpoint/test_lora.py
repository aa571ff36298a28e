"""A base with an adapter reads as what PEFT's own merge writes, kind by kind; what fits nowhere is an error."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge

peft = pytest.importorskip("peft")
Make = Callable[[], nn.Module]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def llama(tied: bool = False) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **SIZES, num_key_value_heads=1, vocab_size=40, tie_word_embeddings=tied, attention_bias=True, mlp_bias=True
    )
    return LlamaForCausalLM(config)


def tied_llama() -> nn.Module:
    return llama(tied=True)


def llava() -> nn.Module:
    """Vision is as deep and as wide as the text: shapes alone can't tell them apart."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=40)
    vision = CLIPVisionConfig(**SIZES, image_size=8, patch_size=4, projection_dim=16)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=vision, image_token_index=39, tie_word_embeddings=False)
    )


def qwen_vl() -> nn.Module:
    """Its files name the text stack as a bare LLM's, `model.layers`."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        **SIZES,
        "num_key_value_heads": 1,
        "vocab_size": 40,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "depth": 2,
        "num_heads": 2,
        "out_hidden_size": 16,
        "patch_size": 4,
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def gpt2() -> nn.Module:
    """Its projections have inputs down and outputs across."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=8))


def qwen_moe() -> nn.Module:
    """Holds experts in one tensor, and writes them one by one."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        **SIZES,
        moe_intermediate_size=12,
        num_experts=3,
        num_experts_per_tok=2,
        num_key_value_heads=2,
        vocab_size=40,
        head_dim=8,
    )
    return Qwen3MoeForCausalLM(config)


def gpt_oss() -> nn.Module:
    """Its experts have inputs down and outputs across, and one of their tensors is square."""
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        **{**SIZES, "intermediate_size": 16}, num_local_experts=3, num_experts_per_tok=2, num_key_value_heads=1,
        vocab_size=40, head_dim=8,
    )  # fmt: skip
    return GptOssForCausalLM(config)


def train(root: Path, make: Make, native: bool = False, **settings: Any) -> tuple[str, Path]:
    """Write base, a random adapter, and PEFT's merge of both; returns BASE+ADAPTER and the merge's directory."""
    torch.manual_seed(0)
    model = make().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(root / "base", save_original_format=not native)
    source = make().from_pretrained(root / "base", dtype=torch.float32)
    adapted = peft.get_peft_model(source, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
            elif parameter.requires_grad or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(root / "adapter")
    fresh = make().from_pretrained(root / "base", dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(fresh, root / "adapter").merge_and_unload()
    merged.save_pretrained(root / "merged", save_original_format=not native)
    return f"{root / 'base'}+{root / 'adapter'}", root / "merged"


def distance(folded: Tensor, merged: Tensor) -> float:
    return float((folded.double() - merged.double()).norm() / merged.double().norm().clamp_min(1e-12))


LINEAR = ["q_proj", "v_proj", "up_proj", "down_proj"]
KINDS: dict[str, tuple[Make, dict[str, Any]]] = {
    "lora": (llama, {"target_modules": LINEAR}),
    "rslora": (llama, {"target_modules": LINEAR, "use_rslora": True}),
    "dora": (llama, {"target_modules": LINEAR, "use_dora": True}),
    "patterns": (
        llama,
        {
            "target_modules": LINEAR,
            "rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 3},
            "alpha_pattern": {"layers.0.mlp.down_proj": 5, ".*up_proj": 9},
        },
    ),
    "modules_to_save": (llama, {"target_modules": LINEAR, "modules_to_save": ["lm_head", "norm"]}),
    "embeddings": (llama, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "embeddings, dora": (llama, {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    "head, tied": (tied_llama, {"target_modules": ["lm_head", "q_proj"]}),
    "embeddings, tied": (tied_llama, {"target_modules": ["embed_tokens"]}),
    "tokens": (llama, {"target_modules": LINEAR, "trainable_token_indices": [1, 3]}),
    "tokens, tied": (tied_llama, {"target_modules": LINEAR, "trainable_token_indices": {"embed_tokens": [5, 2]}}),
    "bias, all": (llama, {"target_modules": LINEAR, "bias": "all"}),
    "bias, lora_only": (llama, {"target_modules": LINEAR, "bias": "lora_only"}),
    "lora_bias": (llama, {"target_modules": LINEAR, "lora_bias": True}),
    "fan_in_fan_out": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "fan_in_fan_out, dora": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
    "vision and text": (llava, {"target_modules": ["q_proj", "v_proj", "linear_1"]}),
    "vision and text, dora": (llava, {"target_modules": ["q_proj", "fc1", "linear_2"], "use_dora": True}),
    "convolution": (llava, {"target_modules": ["patch_embedding", "q_proj"]}),
    "convolution, dora": (llava, {"target_modules": ["patch_embedding"], "use_dora": True}),
    "text of qwen": (qwen_vl, {"target_modules": ["q_proj", "qkv", "down_proj"]}),
    "experts": (
        qwen_moe,
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "experts, transposed": (
        gpt_oss,
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
}


@pytest.mark.parametrize("native", [False, True], ids=["file names", "module names"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_folded_adapter_is_what_peft_merges(tmp_path: Path, kind: str, native: bool) -> None:
    make, settings = KINDS[kind]
    ref, merged = train(tmp_path, make, native, **settings)
    base, folded = Checkpoint.open(tmp_path / "base"), Checkpoint.open(ref)
    expected = load_file(merged / "model.safetensors")
    assert set(folded) == set(base) == set(expected)
    changed = 0
    for name, tensor in folded.items():
        assert (tensor.shape, tensor.safetensors_dtype) == (base[name].shape, base[name].safetensors_dtype)
        assert distance(tensor.load(), expected[name]) <= 1e-6, name
        changed += distance(base[name].load(), expected[name]) > 1e-4
    assert changed >= 1


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base, adapter and merge of a plain LoRA on a LLaVA."""
    root = tmp_path_factory.mktemp("plain")
    train(root, llava, target_modules=["q_proj", "v_proj"])
    return root


def copy_of(plain: Path, root: Path, **settings: Any) -> Path:
    """The plain adapter's directory once more, with settings changed."""
    shutil.copytree(plain / "adapter", root)
    config = json.loads((root / "adapter_config.json").read_text())
    (root / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    return root


def refused(base: Path, adapter: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(f"{base}+{adapter}")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_pieces_of_a_folded_tensor_are_the_whole(plain: Path) -> None:
    folded = Checkpoint.open(f"{plain / 'base'}+{plain / 'adapter'}")
    tensor = folded["language_model.model.layers.1.self_attn.q_proj.weight"]
    whole = tensor.load()
    for start, stop in ((0, 1), (5, 200), (17, 18), (250, 256), (3, 3)):
        torch.testing.assert_close(tensor.read(start, stop), whole.reshape(-1)[start:stop], rtol=1e-6, atol=1e-7)
    buffer = bytearray(100)
    tensor.read_into(memoryview(buffer), 42)
    floats = torch.frombuffer(buffer[2:98], dtype=torch.float32)
    torch.testing.assert_close(floats, whole.reshape(-1)[11:35], rtol=1e-6, atol=1e-7)


def test_folding_writes_nothing_and_its_identity_covers_both_directories(plain: Path, tmp_path: Path) -> None:
    adapter = copy_of(plain, tmp_path / "adapter")
    before = {path: path.stat().st_mtime_ns for path in (plain / "base").iterdir()}
    folded = Checkpoint.open(f"{plain / 'base'}+{adapter}")
    assert folded.location == f"{plain / 'base'}+{adapter}"
    assert Checkpoint.open(folded.ref_model.path).identity == folded.identity
    assert folded.identity != Checkpoint.open(plain / "base").identity
    assert {path: path.stat().st_mtime_ns for path in (plain / "base").iterdir()} == before
    copy_of(plain, tmp_path / "louder", lora_alpha=7)
    assert Checkpoint.open(f"{plain / 'base'}+{tmp_path / 'louder'}").identity != folded.identity


def test_an_adapter_of_another_kind_is_refused(plain: Path, tmp_path: Path) -> None:
    base = plain / "base"
    assert "peft_type is 'LOHA'" in refused(base, copy_of(plain, tmp_path / "a", peft_type="LOHA"))
    assert "use_qalora" in refused(base, copy_of(plain, tmp_path / "b", use_qalora=True))
    assert "init_lora_weights: pissa_niter_16" in refused(
        base, copy_of(plain, tmp_path / "c", init_lora_weights="pissa_niter_16")
    )
    assert "lora_alpha" in refused(base, copy_of(plain, tmp_path / "d", lora_alpha="8"))
    assert "merge_and_unload" in refused(base, copy_of(plain, tmp_path / "e", peft_type="IA3"))
    assert "can't be read" in refused(base, tmp_path / "nowhere")
    pickled = copy_of(plain, tmp_path / "f")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "pickled" in refused(base, pickled)


def test_a_negative_scale_is_refused_wherever_it_stands(plain: Path, tmp_path: Path) -> None:
    base = plain / "base"
    fault = "lora_alpha: 0 or more was expected, found -8. A negative scale takes out"
    assert fault in refused(base, copy_of(plain, tmp_path / "a", lora_alpha=-8))
    assert "found -8" in refused(base, copy_of(plain, tmp_path / "b", lora_alpha=-8, use_rslora=True))
    assert "alpha_pattern.v_proj: 0 or more" in refused(
        base, copy_of(plain, tmp_path / "c", alpha_pattern={"v_proj": -0.5})
    )
    nothing = Checkpoint.open(f"{base}+{copy_of(plain, tmp_path / 'd', lora_alpha=0)}")
    for name, tensor in Checkpoint.open(base).items():
        assert torch.equal(nothing[name].load(), tensor.load())


def change(adapter: Path, edit: Callable[[dict[str, Tensor]], None]) -> Path:
    tensors = load_file(adapter / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")
    return adapter


def test_a_tensor_without_one_clear_place_is_an_error_that_names_it(plain: Path, tmp_path: Path) -> None:
    base = plain / "base"
    stem = "base_model.model.model.language_model.layers"

    def move(tensors: dict[str, Tensor]) -> None:
        for part in ("lora_A", "lora_B"):
            tensors[f"{stem}.7.self_attn.q_proj.{part}.weight"] = tensors.pop(
                f"{stem}.0.self_attn.q_proj.{part}.weight"
            )

    message = refused(base, change(copy_of(plain, tmp_path / "a"), move))
    assert "model.language_model.layers.7.self_attn.q_proj.weight" in message
    assert "trained on this base" in message

    def widen(tensors: dict[str, Tensor]) -> None:
        tensors[f"{stem}.0.self_attn.q_proj.lora_A.weight"] = torch.ones(4, 20)

    message = refused(base, change(copy_of(plain, tmp_path / "b"), widen))
    assert "16 x 20, but language_model.model.layers.0.self_attn.q_proj.weight of the base is 16 x 16" in message

    def halve(tensors: dict[str, Tensor]) -> None:
        del tensors[f"{stem}.0.self_attn.q_proj.lora_B.weight"]

    assert "lora_B is missing" in refused(base, change(copy_of(plain, tmp_path / "c"), halve))

    def resize(tensors: dict[str, Tensor]) -> None:
        tensors["base_model.model.model.language_model.embed_tokens.weight"] = torch.ones(44, 16)

    assert "44 x 16" in refused(base, change(copy_of(plain, tmp_path / "d"), resize))

    def surprise(tensors: dict[str, Tensor]) -> None:
        tensors["base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_C.weight"] = torch.ones(2)

    assert "lora_C" in refused(base, change(copy_of(plain, tmp_path / "e"), surprise))


@pytest.mark.filterwarnings("ignore")
def test_a_tied_head_stays_tied_or_is_refused(tmp_path: Path) -> None:
    both = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    ref, _ = train(tmp_path / "two", tied_llama, **both)
    assert "ties its head to the embedding" in refused(*map(Path, ref.split("+")))
    ref, _ = train(tmp_path / "one", tied_llama, **{**both, "modules_to_save": ["embed_tokens"]})
    assert "ties its head to the embedding" in refused(*map(Path, ref.split("+")))
    ref, merged = train(tmp_path / "same", tied_llama, **both)

    def tie(tensors: dict[str, Tensor]) -> None:
        tensors["base_model.model.lm_head.weight"] = tensors["base_model.model.model.embed_tokens.weight"].clone()

    change(tmp_path / "same" / "adapter", tie)
    folded = Checkpoint.open(ref)
    assert "lm_head.weight" not in folded
    expected = load_file(merged / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(folded["model.embed_tokens.weight"].load(), expected)


def test_a_quantised_base_and_a_plus_without_parts_are_refused(plain: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(plain / "base", base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    assert "quantised (fp8)" in refused(base, plain / "adapter")
    with pytest.raises(CheckpointError, match=r"BASE\+ADAPTER"):
        Checkpoint.open("nowhere+")
    shutil.copytree(plain / "base", tmp_path / "llava+more")
    assert Checkpoint.open(tmp_path / "llava+more").adapter is None


def test_a_folded_checkpoint_is_compared_and_merged_as_any_other(plain: Path, tmp_path: Path) -> None:
    """Its diff against the base is s B A where the adapter acts, and nothing elsewhere; a merge writes it out."""
    ref = f"{plain / 'base'}+{plain / 'adapter'}"
    roles = {"base": Checkpoint.open(plain / "base"), "adapted": Checkpoint.open(ref)}
    pairs = {pair.names["adapted"]: pair.metrics.vl for pair in diff(align(roles)).pairs}
    moved = {name for name, change in pairs.items() if change is not None and change.rms}
    assert moved == {
        name for name in pairs if isinstance(name, str) and name.endswith(("q_proj.weight", "v_proj.weight"))
    }
    run_merge(Recipe.of(roles, Coefficients({"default": {"base": 0.0}})), tmp_path / "out")
    written, expected = Checkpoint.open(tmp_path / "out"), load_file(plain / "merged" / "model.safetensors")
    assert all(distance(written[name].load(), expected[name]) <= 1e-6 for name in expected)


def test_in_low_precision_the_sum_is_rounded_once(plain: Path, tmp_path: Path) -> None:
    exact = load_file(plain / "base" / "model.safetensors")
    shutil.copytree(plain / "base", tmp_path / "base")
    save_file({name: tensor.bfloat16() for name, tensor in exact.items()}, tmp_path / "base" / "model.safetensors")
    wide = {name: tensor.bfloat16().float() for name, tensor in exact.items()}
    shutil.copytree(plain / "base", tmp_path / "wide")
    save_file(wide, tmp_path / "wide" / "model.safetensors")
    narrow = Checkpoint.open(f"{tmp_path / 'base'}+{plain / 'adapter'}")
    for name, tensor in Checkpoint.open(f"{tmp_path / 'wide'}+{plain / 'adapter'}").items():
        assert torch.equal(narrow[name].load(), tensor.load().bfloat16()), name


def make_adapter(path: Path, factors: dict[str, tuple[Tensor, Tensor]]) -> Path:
    """An adapter of rank 2 and alpha 6 by hand: module -> A and B."""
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 6}))
    tensors = {}
    for module, (down, up) in factors.items():
        tensors |= {f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up}
    save_file(tensors, path / "adapter_model.safetensors")
    return path


@pytest.mark.parametrize(
    ("fused", "order"),
    [
        ("self_attn.qkv_proj", "qkv"),
        ("self_attn.att_proj", "qkv"),
        ("mlp.gate_up_proj", ("gate", "up")),
        ("mlp.ff_proj", ("up", "gate")),
    ],
)
def test_a_projection_that_its_file_fuses_changes_its_own_rows(
    tmp_path: Path, write: Callable[..., Path], fused: str, order: str | tuple[str, ...]
) -> None:
    """Each part's rows of the fused tensor move by that part's s B A, and no others."""
    sizes = {"q": 8, "k": 4, "v": 4, "gate": 12, "up": 12}
    whole = torch.randn(sum(sizes[part] for part in order), 8)
    base = write(tmp_path / "base", {f"model.layers.0.{fused}.weight": whole, "model.layers.0.a.weight": torch.ones(2)})
    stem = f"model.language_model.layers.0.{fused.split('.')[0]}"
    factors = {part: (torch.randn(2, 8), torch.randn(sizes[part], 2)) for part in order}
    adapter = make_adapter(tmp_path / "a", {f"{stem}.{part}_proj": pair for part, pair in factors.items()})
    expected = whole + 3 * torch.cat([up @ down for down, up in factors.values()])
    folded = Checkpoint.open(f"{base}+{adapter}")
    torch.testing.assert_close(folded[f"model.layers.0.{fused}.weight"].load(), expected)


def test_modules_that_a_file_counts_otherwise_are_not_mixed_up(tmp_path: Path, write: Callable[..., Path]) -> None:
    """The live model's fc1 is the file's fc0; the file's fc1 is another module."""
    mlp = {f"vision_tower.blocks.0.mlp.fc{number}.weight": torch.ones(8, 8) for number in (0, 1)}
    base = write(tmp_path / "base", mlp)
    adapter = make_adapter(
        tmp_path / "a", {"model.vision_tower.layers.0.mlp.fc1": (torch.ones(2, 8), torch.ones(8, 2))}
    )
    assert "model.vision_tower.layers.0.mlp.fc1.weight" in refused(base, adapter)


def test_rows_that_may_be_in_another_order_are_not_touched(tmp_path: Path, write: Callable[..., Path]) -> None:
    """Under the older words `wq` and `w13`, q is turned for rotary embeddings, and gate and up interleave."""
    base = write(tmp_path / "base", {"layers.0.attention.wq.weight": torch.ones(8, 8)})
    adapter = make_adapter(tmp_path / "a", {"model.layers.0.attention.q_proj": (torch.ones(2, 8), torch.ones(8, 2))})
    assert "model.layers.0.attention.q_proj.weight" in refused(base, adapter)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 50) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SETTINGS = ["lora_alpha", "alpha_pattern", "target_parameters", "trainable_token_indices", "use_dora", "fan_in_fan_out"]
KEYS = st.sampled_from(
    [
        "layers.0.self_attn.q_proj.lora_A.weight", "layers.0.self_attn.q_proj.lora_B.weight", "norm.weight",
        "embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_B", "layers.0.self_attn.q_proj.lora_B.bias",
        "layers.0.self_attn.q_proj.lora_magnitude_vector", "embed_tokens.token_adapter.trainable_tokens_delta",
        "norm.token_adapter.trainable_tokens_delta", "layers.0.mlp.experts.base_layer.lora_A.weight", "x", "lora_A",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    llama().save_pretrained(path)
    return path


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    config=st.dictionaries(st.sampled_from(SETTINGS), JSON),
    shapes=st.dictionaries(KEYS, st.lists(st.sampled_from([0, 1, 2, 16, 40]), max_size=4), max_size=6),
)
def test_any_settings_and_tensors_are_an_error_or_an_adapter(
    tmp_path_factory: pytest.TempPathFactory,
    llama_base: Path,
    config: dict[str, Any],
    shapes: dict[str, list[int]],
) -> None:
    adapter = tmp_path_factory.mktemp("adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 6, **config}))
    tensors = {f"base_model.model.model.{name}": torch.ones(shape) for name, shape in shapes.items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    with contextlib.suppress(CheckpointError):
        for tensor in Checkpoint.open(f"{llama_base}+{adapter}").values():
            loaded = tensor.load()
            assert (loaded.shape, loaded.dtype) == (tensor.shape, tensor.dtype)


PROJECTOR = "multi_modal_projector.linear_1.weight"


@pytest.mark.parametrize("file", ["non_lora_trainables.bin", "mm_projector.pt", "projector.safetensors"])
def test_weights_trained_beside_an_adapter_are_used(plain: Path, tmp_path: Path, file: str) -> None:
    base, adapter = plain / "base", copy_of(plain, tmp_path / "a")
    before = Checkpoint.open(f"{base}+{adapter}")
    trained = {f"base_model.model.model.{PROJECTOR}": torch.full(before[PROJECTOR].shape, 2.0)}
    if file.endswith(".safetensors"):
        save_file(trained, adapter / file)
    else:
        torch.save(trained, adapter / file)
        assert f"{file}: weights that were trained beside the adapter, pickled" in refused(base, adapter)
    folded = Checkpoint.open(f"{base}+{adapter}", allow_pickle=True)
    assert torch.equal(folded[PROJECTOR].load(), next(iter(trained.values())))
    assert all(torch.equal(folded[name].load(), before[name].load()) for name in before if name != PROJECTOR)
    assert folded.identity != before.identity
    assert folded.stamp != before.stamp
    assert file in folded.weight_files
    assert folded.pickled is not file.endswith(".safetensors")
    assert Checkpoint.reopen(folded.ref_model).identity == folded.identity


def test_weights_beside_an_adapter_that_fit_nowhere_are_named(plain: Path, tmp_path: Path) -> None:
    base, adapter = plain / "base", copy_of(plain, tmp_path / "a")
    save_file({"model.mm_projector.0.weight": torch.ones(16, 16)}, adapter / "extra.safetensors")
    assert "extra.safetensors: model.mm_projector.0.weight: no tensor of the base" in refused(base, adapter)
    save_file({PROJECTOR: torch.ones(3, 3)}, adapter / "extra.safetensors")
    assert f"extra.safetensors: {PROJECTOR}: 3 x 3, but {PROJECTOR} of the base is" in refused(base, adapter)
    (adapter / "extra.safetensors").rename(adapter / "model.safetensors")
    assert "model.safetensors: weights of a whole model beside an adapter" in refused(base, adapter)
    (adapter / "model.safetensors").rename(adapter / "optimizer.safetensors")
    assert Checkpoint.open(f"{base}+{adapter}").adapter is not None


UNREAD = ("value_head.safetensors", "v_head.bin", "projector.npz", "projector.pkl", "part/mm_projector.bin", "w.distcp")
NO_PART = ("optimizer.pt", "rng_state_0.pth", "training_args.bin", "checkpoint-10/model.safetensors", "README.md",
           "global_step10/mp_rank_00_model_states.pt", "runs/events.out.tfevents.1", "trainer_state.json")  # fmt: skip


@pytest.mark.parametrize("file", [*UNREAD, *NO_PART])
def test_weights_beside_an_adapter_that_are_not_used_are_told(plain: Path, tmp_path: Path, file: str) -> None:
    base, adapter = plain / "base", copy_of(plain, tmp_path / "a")
    before = Checkpoint.open(f"{base}+{adapter}")
    (adapter / file).parent.mkdir(exist_ok=True)
    (adapter / file).write_bytes(b"")
    after = Checkpoint.open(f"{base}+{adapter}")
    assert not before.notes
    assert [file in note for note in after.notes] == [True] * (file in UNREAD)
    assert all(torch.equal(after[name].load(), before[name].load()) for name in before)


def test_an_adapters_own_tokenizer_and_template_replace_the_bases_as_a_whole(plain: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", copy_of(plain, tmp_path / "a")
    shutil.copytree(plain / "base", base)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "chat_template.jinja", "LICENSE"):
        (base / name).write_text("{}")

    def used() -> dict[str, str]:
        taken = Checkpoint.open(f"{base}+{adapter}").companions
        return {
            name: file.parent.name
            for name, file in taken.items()
            if name not in ("config.json", "generation_config.json")
        }

    names = ("LICENSE", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "vocab.json")
    whole = dict.fromkeys(names, "base")
    assert used() == whole
    (adapter / "chat_template.jinja").write_text("x")
    assert used() == {**whole, "chat_template.jinja": "a"}
    (adapter / "chat_template.jinja").unlink()
    (adapter / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (adapter / "tokenizer.json").write_text("{}")
    assert used() == {"LICENSE": "base", "tokenizer.json": "a", "tokenizer_config.json": "a"}
