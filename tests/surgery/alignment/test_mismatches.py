"""Checkpoints of one shape whose configs or tokenizers differ: what differs is named, and nothing else is."""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.alignment.mismatches import fit_of
from vlsurgery.surgery.alignment.text_settings import text_settings
from vlsurgery.surgery.alignment.vocabulary import vocabulary_of
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.anatomy import describe
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import Mismatch

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
ROWS = 40
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": ROWS, "num_attention_heads": 2,
    "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
}  # fmt: skip
# Settings for which nothing is presumed where a config leaves them out.
UNPRESUMED = {
    "no_rope_layers": [1, 1], "attention_chunk_size": 32, "use_bidirectional_attention": False,
    "routed_scaling_factor": 1.0, "topk_group": 1, "qk_rope_head_dim": 8, "use_parallel_residual": False,
}  # fmt: skip
TEXT_TYPES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi",
    "phi3", "granite", "olmo2", "olmo3", "cohere", "cohere2", "gpt_oss", "glm4", "llama4_text", "ministral", "stablelm",
    "starcoder2", "gpt_neox", "opt", "smollm3", "deepseek_v3", "internlm3", "exaone4", "qwen3_5_text", "fuyu",
)  # fmt: skip
TOKENS = [f"t{row}" for row in range(ROWS)]
SWAPPED = [*TOKENS[:10], *reversed(TOKENS[10:])]


@pytest.fixture
def make(tmp_path: Path, write: Write, llama: Llama) -> Callable[..., Path]:
    """Writes a checkpoint of one shape, with the config given; `files` go beside it, text or JSON."""

    def written(name: str, config: Mapping[str, Any] = CONFIG, files: Mapping[str, Any] | None = None) -> Path:
        path = write(tmp_path / name, llama(), config)
        for file, content in (files or {}).items():
            plain = content.encode() if isinstance(content, str) else content
            data = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
            (path / file).write_bytes(data)
        return path

    return written


def fast(tokens: list[str], **added: int) -> dict[str, Any]:
    rows = {token: row for row, token in enumerate(tokens)}
    return {
        "model": {"type": "BPE", "vocab": rows, "merges": []},
        "added_tokens": [{"id": row, "content": token, "special": True} for token, row in added.items()],
    }


def found(base: Path, adapted: Path) -> dict[str, Mismatch]:
    alignment = align({"base": Checkpoint.open(base), "adapted": Checkpoint.open(adapted)})
    return {each.name: each for each in fit_of(alignment).mismatches}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rope_theta", {"rope_theta": 1e6}),
        ("rope_theta", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ("rope_scaling", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("rope_scaling", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        ("partial_rotary_factor", {"partial_rotary_factor": 0.5}),
        ("norm_eps", {"rms_norm_eps": 1e-5}),
        ("activation", {"hidden_act": "gelu"}),
        ("attention_heads", {"num_attention_heads": 4}),
        ("kv_heads", {"num_key_value_heads": 1}),
        ("head_dim", {"head_dim": 4}),
        ("sliding_window", {"sliding_window": 128}),
        ("attention_bias", {"attention_bias": True}),
        ("mlp_bias", {"mlp_bias": True}),
        ("tie_word_embeddings", {"tie_word_embeddings": True}),
        ("max_position_embeddings", {"max_position_embeddings": 4096}),
        ("final_softcap", {"final_logit_softcapping": 30.0}),
        ("bos_token", {"bos_token_id": 5}),
        ("layers_without_rope", {"no_rope_layers": [1, 0]}),
        ("attention_chunk", {"attention_chunk_size": 64}),
        ("bidirectional", {"use_bidirectional_attention": True}),
        ("expert_factor", {"routed_scaling_factor": 2.5}),
        ("groups_per_token", {"topk_group": 2}),
        ("rope_head_dim", {"qk_rope_head_dim": 4}),
        ("parallel_blocks", {"use_parallel_residual": True}),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_setting_that_differs_is_named(
    make: Callable[..., Path], name: str, change: dict[str, Any], nested: bool
) -> None:
    plain = {**CONFIG, "bos_token_id": 0, **{key: UNPRESUMED[key] for key in change.keys() & UNPRESUMED.keys()}}
    changed = {**plain, **change}
    base = make("base", plain)
    adapted = make("adapted", {"model_type": "llava", "text_config": changed} if nested else changed)
    assert name in found(base, adapted)
    assert not found(base, adapted)[name].serious
    assert not found(base, make("same", {"model_type": "llava", "text_config": plain} if nested else plain))


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10000}},
        {"rope_theta": None, "rms_norm_eps": None, "hidden_act": None},  # what transformers fills in
        {"rope_scaling": None, "attention_bias": False, "mlp_bias": False, "sliding_window": None},
        {"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}},
        {"rope_scaling": {"rope_type": "linear", "factor": 1.0}},
        {"hidden_act": "swish", "head_dim": 8, "num_key_value_heads": 2},
        {"sliding_window": 4096, "use_sliding_window": False},
        {"torch_dtype": "bfloat16", "use_cache": False, "transformers_version": "4.30"},
        {"model_type": "llava_llama", "rope_theta": None},
    ],
)
def test_what_means_the_same_is_no_mismatch(make: Callable[..., Path], change: dict[str, Any]) -> None:
    changed = {key: value for key, value in {**CONFIG, **change}.items() if value is not None}
    assert not found(make("base"), make("adapted", changed))


def test_old_and_new_spellings_of_rotary_settings_of_each_kind_of_layer_agree() -> None:
    old = {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    kinds = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    new = {"model_type": "gemma3_text", "rope_parameters": kinds}
    assert text_settings(old) == text_settings(new)
    kinds["sliding_attention"] = {"rope_theta": 2e4}
    assert text_settings(old)["rope_theta"] != text_settings(new)["rope_theta"]
    bare = {"model_type": "gemma3_text", "rope_theta": 1e6}  # Gemma 3's own theta nearby is 10,000
    assert text_settings(bare)["rope_theta"] == text_settings(old)["rope_theta"]


def rotary(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": theta, **scaling}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, rotary(1e4, rope_type="yarn", factor=4.0)),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            rotary(1e4, rope_type="yarn", factor=4.0, original_max_position_embeddings=256),
        ),
        (
            {"rope_scaling": {"type": "su", "long_factor": [2.0]}, "original_max_position_embeddings": 64},
            rotary(1e4, rope_type="longrope", long_factor=[2.0], original_max_position_embeddings=64),
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", "type": "llama3", "factor": 8.0}},
            rotary(1e4, rope_type="llama3", factor=8.0),
        ),
        ({"rope_scaling": None, "partial_rotary_factor": 0.5}, rotary(1e4, partial_rotary_factor=0.5)),
    ],
)
def test_a_rotary_scaling_is_one_whatever_version_of_transformers_wrote_it(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    length = {"model_type": "llama", "max_position_embeddings": 256}
    assert text_settings({**length, "rope_theta": 1e4, **old}) == text_settings({**length, **new})


def test_pictures_positions_are_compared_where_both_say_how_they_turn(make: Callable[..., Path]) -> None:
    def turned(*section: int) -> dict[str, Any]:
        return {**CONFIG, "rope_scaling": {"type": "mrope", "mrope_section": list(section)}}

    base = make("base", turned(2, 1, 1))
    assert found(base, make("other", turned(1, 1, 2)))["mrope_section"].values["adapted"] == "2 x 1, 2"
    assert not found(base, make("text"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vision_feature_layer", {"vision_feature_layer": -1}),
        ("vision_features", {"vision_feature_select_strategy": "full"}),
        ("projector_activation", {"projector_hidden_act": "relu"}),
        ("vision_activation", {"vision_config": {"hidden_act": "gelu"}}),
        ("vision_norm_eps", {"vision_config": {"layer_norm_eps": 1e-6}}),
        ("vision_heads", {"vision_config": {"num_attention_heads": 4}}),
        (None, {"vision_config": {"hidden_act": "quick_gelu", "initializer_range": 0.1}}),
        (None, {"projector_hidden_act": "gelu", "vision_config": {"image_size": [16, 16]}}),
    ],
)
def test_what_the_vision_tower_hands_on_is_compared(
    make: Callable[..., Path], name: str | None, change: dict[str, Any]
) -> None:
    tower = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 2, "image_size": 16}
    sees = {
        "model_type": "llava", "text_config": CONFIG, "vision_config": tower, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu",
    }  # fmt: skip
    changed = {**sees, **change, "vision_config": {**tower, **change.get("vision_config", {})}}
    base = make("base", sees)
    assert set(found(base, make("adapted", changed))) == ({name} if name else set())
    assert not found(make("text"), base)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, True),
        ({"tie_word_embeddings": True}, False),
        ({"text_config": {"tie_word_embeddings": True}}, False),
        ({"architectures": ["LlamaForSequenceClassification"]}, False),
    ],
)
def test_a_head_that_is_neither_in_the_file_nor_the_embedding_is_said(
    tmp_path: Path, write: Write, llama: Llama, change: dict[str, Any], told: bool
) -> None:
    untied = {**CONFIG, "architectures": ["LlamaForCausalLM"]}
    held = {name: tensor for name, tensor in llama().items() if not name.startswith("lm_head")}
    base = Checkpoint.open(write(tmp_path / "base", held, {**untied, **change}))
    whole = Checkpoint.open(write(tmp_path / "whole", llama(), untied))
    notes = [note for note in align({"base": base, "adapted": whole}).notes if "draw one at random" in note]
    assert [note.startswith("base: ") for note in notes] == [True] * told
    assert any("draw one at random" in note for note in describe(base).notes) is told
    assert not [note for note in describe(whole).notes if "random" in note]


def test_configs_that_disagree_with_themselves_on_ties_say_nothing_of_them() -> None:
    said = {"model_type": "llava_onevision", "text_config": {"model_type": "qwen2", "tie_word_embeddings": True}}
    assert text_settings(said)["tie_word_embeddings"] is True
    assert "tie_word_embeddings" not in text_settings({**said, "tie_word_embeddings": False})


def test_no_value_is_presumed_that_transformers_does_not_take() -> None:
    """For every language model that transformers knows: a config that says nothing but its type."""
    from transformers.models.auto import configuration_auto as auto

    for kind in TEXT_TYPES:
        if kind in auto.CONFIG_MAPPING:
            taken = text_settings(json.loads(json.dumps(auto.CONFIG_MAPPING[kind]().to_dict(), default=str)))
            for name, value in text_settings({"model_type": kind}).items():
                assert taken.get(name, value) == value, (kind, name)


def sentencepiece(tokens: list[str]) -> bytes:
    """A model as sentencepiece writes it: per piece its text, a score and a type; then a trainer's settings."""
    pieces = [bytes([10, len(token)]) + token.encode() + b"\x15\0\0\0\0\x18\x01" for token in tokens]
    return b"".join(bytes([10, len(piece)]) + piece for piece in pieces) + b"\x12\x02\x08\x01"


def tiktoken(tokens: list[str]) -> bytes:
    return b"".join(base64.b64encode(token.encode()) + f" {row}\n".encode() for row, token in enumerate(tokens))


def tekken(tokens: list[str]) -> dict[str, Any]:
    """As Mistral's package has it: three special rows, ranks from behind them, and more ranks than the model takes."""
    more = [*tokens[3:], "never taken"]
    return {
        "config": {"default_num_special_tokens": 3, "default_vocab_size": len(tokens)},
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(t.encode()).decode()} for rank, t in enumerate(more)],
        "special_tokens": [{"rank": rank, "token_str": token} for rank, token in enumerate(tokens[:3])],
    }


KINDS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "tokenizer.json": lambda tokens: {"tokenizer.json": fast(tokens)},
    "unigram": lambda tokens: {"tokenizer.json": {"model": {"vocab": [[token, -1.0] for token in tokens]}}},
    "vocab.json": lambda tokens: {"vocab.json": {token: row for row, token in enumerate(tokens)}},
    "vocab.txt": lambda tokens: {"vocab.txt": "\n".join(tokens).encode()},
    "sentencepiece": lambda tokens: {"tokenizer.model": sentencepiece(tokens)},
    "tiktoken": lambda tokens: {"qwen.tiktoken": tiktoken(tokens)},
    "tekken": lambda tokens: {"tekken.json": tekken(tokens)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_tokens_in_another_order_are_serious_whatever_files_hold_them(
    make: Callable[..., Path], kind: str, other: str
) -> None:
    base = make("base", files=KINDS[kind](TOKENS))
    assert not found(base, make("same", files=KINDS[other](TOKENS)))
    odd = found(base, make("adapted", files=KINDS[other](SWAPPED)))["tokens"]
    assert odd.serious
    assert odd.values == {"base": "10 't10', 11 't11'", "adapted": "10 't39', 11 't38'"}
    assert f"30 of {ROWS}" in odd.meaning


def test_other_words_of_the_same_number_are_serious(make: Callable[..., Path]) -> None:
    words = [*TOKENS[:39], "word"]
    adapted = make("adapted", files={"tokenizer.json": fast(words)})
    assert found(make("base", files={"tokenizer.json": fast(TOKENS)}), adapted)["tokens"].serious


def test_tokens_that_adaptation_adds_are_no_mismatch(make: Callable[..., Path]) -> None:
    base = make("base", files={"tokenizer.json": fast(TOKENS[:38])})
    assert not found(base, make("adapted", files={"tokenizer.json": fast(TOKENS[:38], image=38)}))


def test_added_tokens_that_take_one_row_are_serious_and_a_spare_row_is_not(make: Callable[..., Path]) -> None:
    base = make("base", files={"tokenizer.json": fast(TOKENS[:38], tool=38)})
    decoder = {"added_tokens_decoder": {"38": {"content": "<image>"}}}
    taken = make("taken", files={"tokenizer.json": fast(TOKENS[:38]), "tokenizer_config.json": decoder})
    assert found(base, taken)["tokens"].serious
    spare = make("spare", files={"tokenizer.json": fast(TOKENS[:38], **{"<|reserved_3|>": 38})})
    assert set(found(spare, taken)) == {"spare_tokens"}
    assert not found(spare, taken)["spare_tokens"].serious


def test_a_special_token_that_moved_is_told_with_its_row(make: Callable[..., Path]) -> None:
    files = {"tokenizer.json": fast(TOKENS)}
    base = make("base", files={**files, "tokenizer_config.json": {"eos_token": "t2"}})
    adapted = make("adapted", files={**files, "special_tokens_map.json": {"eos_token": {"content": "t7"}}})
    assert found(base, adapted)["eos_token"].values == {"base": "'t2' (2)", "adapted": "'t7' (7)"}


@pytest.mark.parametrize(
    ("name", "base", "adapted"),
    [
        ("end_of_answer", {}, {"config.json": {"eos_token_id": [1, 6]}}),
        ("end_of_answer", {}, {"generation_config.json": {"eos_token_id": [1, 6]}}),
        ("pad_token", {"config.json": {"pad_token_id": 2}}, {"config.json": {"pad_token_id": 1}}),
        ("image_token", {"config.json": {"image_token_id": 3}}, {"config.json": {"image_token_index": 4}}),
        ("picture_start", {"config.json": {"vision_start_token_id": 3}}, {"config.json": {"vision_start_token_id": 4}}),
        ("chat_template", {"chat_template.jinja": "a"}, {"tokenizer_config.json": {"chat_template": "b"}}),
    ],
)
def test_tokens_and_templates_that_frame_prompts_are_compared(
    make: Callable[..., Path], name: str, base: dict[str, Any], adapted: dict[str, Any]
) -> None:
    def put(role: str, files: dict[str, Any]) -> Path:
        others = {"tokenizer.json": fast(TOKENS), "generation_config.json": {"eos_token_id": 1}, **files}
        return make(role, {**CONFIG, "eos_token_id": 1, **others.pop("config.json", {})}, others)

    assert set(found(put("base", base), put("adapted", adapted))) == {name}
    assert not found(put("one", adapted), put("two", adapted))


def test_what_frames_prompts_alike_is_no_mismatch_wherever_it_is_written(make: Callable[..., Path]) -> None:
    base = make("base", {**CONFIG, "eos_token_id": 1}, {"chat_template.jinja": b"{{ m }}\n"})
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": "{{ m }}"}]
    for number, files in enumerate(
        (
            {"tokenizer_config.json": {"chat_template": "{{ m }}", "padding_side": "left", "model_max_length": 9}},
            {"tokenizer_config.json": {"chat_template": named}},
            {"chat_template.json": {"chat_template": "{{ m }}"}, "generation_config.json": {"eos_token_id": [1]}},
        )
    ):
        assert not found(base, make(f"same{number}", {**CONFIG, "eos_token_id": [1]}, files))


def test_special_tokens_are_compared_by_row_where_a_tokenizer_is_missing(make: Callable[..., Path]) -> None:
    config = {**CONFIG, "bos_token_id": 0}
    settings = {"bos_token": "t0"}
    base = make("base", config, {"tokenizer.json": fast(TOKENS), "tokenizer_config.json": settings})
    assert not found(base, make("same", config))
    assert set(found(base, make("moved", {**config, "bos_token_id": 1}))) == {"bos_token"}


LOWERCASE = {"type": "Lowercase"}
SPLIT = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"model": {"merges": ["t 1", "t 2"]}}, {"model": {"merges": ["t 2", "t 1"]}}, "merges"),
        ({"model": {}}, {"model": {"byte_fallback": True}}, "byte_fallback"),
        ({}, {"normalizer": LOWERCASE}, "normalizer"),
        ({"pre_tokenizer": SPLIT}, {"pre_tokenizer": {**SPLIT, "behavior": "Removed"}}, "pre_tokenizer"),
        ({"model": {"merges": ["t 1"]}}, {"model": {"merges": [["t", "1"]]}}, None),
        ({"model": {}}, {"model": {"ignore_merges": False, "byte_fallback": False, "dropout": None}}, None),
        ({"normalizer": LOWERCASE}, {"normalizer": {"type": "Sequence", "normalizers": [LOWERCASE]}}, None),
        (
            {"normalizer": {"type": "Prepend", "prepend": "\u2581"}},
            {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"}},
            None,
        ),
        ({"truncation": {"max_length": 4}}, {"padding": {"pad_id": 1}}, None),
    ],
)
def test_a_vocabulary_that_is_cut_otherwise_is_told(
    make: Callable[..., Path], one: dict[str, Any], other: dict[str, Any], told: str | None
) -> None:
    def cut(role: str, change: dict[str, Any]) -> Path:
        plain = fast(TOKENS)
        return make(
            role, files={"tokenizer.json": {**plain, **change, "model": {**plain["model"], **change.get("model", {})}}}
        )

    mismatches = found(cut("base", one), cut("adapted", other))
    assert set(mismatches) == ({"tokenization"} if told else set())
    assert not told or all(value.startswith(told) for value in mismatches["tokenization"].values.values())


def test_tokens_without_a_row_are_said(make: Callable[..., Path]) -> None:
    base = make("base", files={"tokenizer.json": fast(TOKENS)})
    over = make("over", files={"tokenizer.json": fast(TOKENS, tool=ROWS, call=ROWS + 1)})
    (note,) = fit_of(align({"base": Checkpoint.open(base), "adapted": Checkpoint.open(over)})).notes
    assert note.startswith(f"adapted: its tokenizer has 2 tokens that its {ROWS} embeddings have no row for")
    assert f"'tool' ({ROWS})" in note


def test_a_broken_file_beside_a_tokenizer_does_not_hide_moved_tokens(make: Callable[..., Path]) -> None:
    base = make("base", files={"tokenizer.json": fast(TOKENS)})
    broken = make("broken", files={"tokenizer.json": fast(SWAPPED), "generation_config.json": b"{"})
    fit = fit_of(align({"base": Checkpoint.open(base), "adapted": Checkpoint.open(broken)}))
    assert "tokens" in {each.name for each in fit.mismatches if each.serious}
    assert [note for note in fit.notes if "generation_config.json" in note]


def test_tokens_that_cannot_be_compared_are_said(make: Callable[..., Path]) -> None:
    base, adapted = make("base", files={"tokenizer.json": fast(TOKENS)}), make("adapted")
    (note,) = fit_of(align({"base": Checkpoint.open(base), "adapted": Checkpoint.open(adapted)})).notes
    assert "adapted" in note


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b'{"model": 3}'),
        ("tekken.json", b'{"vocab": []}'),
        (
            "tekken.json",
            b'{"config": {"default_num_special_tokens": 0, "default_vocab_size": 9}, "vocab": '
            b'[{"rank": 0, "token_bytes": "?"}]}',
        ),
        ("tokenizer.model", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("tokenizer.model", b"\x0a\x7fshort"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\n"),
    ],
)
def test_a_broken_tokenizer_is_named_in_one_line(make: Callable[..., Path], file: str, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=file) as caught:
        vocabulary_of(Checkpoint.open(make("base", files={file: content})))
    assert "\n" not in str(caught.value)


def test_hostile_text_of_a_tokenizer_or_config_stays_text_and_short(make: Callable[..., Path]) -> None:
    odd = [*TOKENS[:39], "\x1b[31m\n" + "x" * 10_000]
    base = make("base", {**CONFIG, "hidden_act": "\x1b]0;\a" + "y" * 10_000}, {"tokenizer.json": fast(TOKENS)})
    for each in found(base, make("adapted", files={"tokenizer.json": fast(odd)})).values():
        assert all(len(value) < 300 and value.isprintable() for value in each.values.values())


def test_settings_nested_without_end_are_compared_as_far_as_they_mean_something(make: Callable[..., Path]) -> None:
    deep: dict[str, Any] = {}
    for _ in range(80):
        deep = {"full_attention": deep}
    base = make("base", {**CONFIG, "rope_parameters": deep, "rope_scaling": deep, "layer_types": deep})
    assert "layer_types" not in found(base, make("adapted", {**CONFIG, "rope_parameters": deep}))
    other = make("other", {**CONFIG, "layer_types": ["full_attention"] * 2})
    assert found(base, other)["layer_types"].values["adapted"] == "2 x full_attention"
