"""The kinds of files from elsewhere: a good one of each, and what reads it."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load, save

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.history import history_rows
from vlsurgery.probes.evaluation.completions import load_completions
from vlsurgery.probes.evaluation.judges import read_labels
from vlsurgery.probes.evaluation.limits import read_limits
from vlsurgery.probes.harnesses import import_log
from vlsurgery.probes.prompts import load_prompt_files
from vlsurgery.probes.prompts.picture_files import MAX_PIXELS, check_picture, rgb
from vlsurgery.probes.results import LABELS
from vlsurgery.probes.templates import render
from vlsurgery.surgery.alignment.comparison import compare
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.anatomy import describe
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.mergekit import load_recipe
from vlsurgery.surgery.results import CheckpointRef, DiffResult
from vlsurgery.surgery.writer.checksums import listed_sums

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of file. file: its name. content: of a good one. ways: how it is damaged, as `put` takes them.

    read: reads it, and raises AssertionError where what it finds is not right. beside: name -> content of the good
    files around it. share: of the examples, where each takes long. own_process: whether reading starts a process.
    """

    name: str
    file: str
    content: bytes
    ways: str
    read: Read
    beside: dict[str, bytes] = field(default_factory=dict)
    share: float = 1.0

    def lay_out(self, folder: Path) -> Path:
        """Put the files around it into a folder; the path of the file itself."""
        for name, content in {**self.beside, self.file: self.content}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.file


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


LAYERS: Final = [f"model.layers.{layer}" for layer in range(2)]
WEIGHTS: Final = {
    **{
        f"{stem}.{part}.weight": np.full((4, 4), at, np.float32)
        for at, stem in enumerate(LAYERS)
        for part in (*(f"self_attn.{each}_proj" for each in "qkvo"), *(f"mlp.{each}_proj" for each in ("gate", "up",
        "down")))
    },
    **{f"{stem}.{norm}_layernorm.weight": np.ones(4, np.float32) for stem in LAYERS for norm in ("input",
    "post_attention")},
    "model.norm.weight": np.ones(4, np.float32),
    "model.embed_tokens.weight": np.arange(32, dtype=np.float32).reshape(8, 4),
    "lm_head.weight": np.ones((8, 4), np.float16),
}  # fmt: skip
CONFIG: Final = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4, "num_hidden_layers": 2,
    "vocab_size": 8,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "sliding_window": 8,
    "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": [2, 3], "max_position_embeddings": 32, "layer_types": ["full_attention"] * 2,
    "auto_map": {"AutoModel": "model.Own"}, "quantization_config": None, "vision_config": {"patch_size": 2,
    "hidden_size": 4},
}  # fmt: skip
TOKENIZER: Final = {
    "version": "1.0",
    "added_tokens": [{"id": 7, "content": "<s>", "special": True, "normalized": False}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
    "pair": []},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {letter: at for at, letter in enumerate("abcdefg")}, "merges": [["a", "b"],
    ["c", "d"]]},
}  # fmt: skip
TOKENIZER_CONFIG: Final = {
    "bos_token": "<s>", "eos_token": {"content": "a", "__type": "AddedToken"}, "add_bos_token": True, "pad_token": None,
    "added_tokens_decoder": {"7": {"content": "<s>"}}, "chat_template": [{"name": "default",
    "template": "{{ messages }}"}],
    "tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["tok.Slow", None]},
}  # fmt: skip
WHOLE: Final = save(WEIGHTS, metadata={"format": "pt"})
CHECKPOINT: Final = {
    "c/config.json": as_json(CONFIG),
    "c/model.safetensors": WHOLE,
    "c/tokenizer.json": as_json(TOKENIZER),
    "c/tokenizer_config.json": as_json(TOKENIZER_CONFIG),
    "c/generation_config.json": as_json({"eos_token_id": [2], "temperature": 0.5}),
    "d/config.json": as_json({**CONFIG, "rope_theta": 2e4}),
    "d/model.safetensors": WHOLE,
    "d/tokenizer.json": as_json({**TOKENIZER, "normalizer": None}),
    "d/tokenizer_config.json": as_json({**TOKENIZER_CONFIG, "add_bos_token": False}),
}


def tensors_of(folder: Path, **options: Any) -> dict[str, Any]:
    """Every tensor of a checkpoint, after all that `anatomy A B` reads of it."""
    held = Checkpoint.open(folder, **options)
    describe(held)
    assert held.identity
    assert all(file.is_relative_to(folder) for file in held.companions.values())
    compare({"c": held, "d": Checkpoint.open(folder.parent / "d")})
    return {name: tensor.load() for name, tensor in held.items() if tensor.dtype_name in ("float32", "float16")}


def unchanged(file: Path, **options: Any) -> None:
    """A file beside the weights changes none of them."""
    found = tensors_of(file.parent, **options)
    assert found.keys() <= WEIGHTS.keys()
    assert all(np.array_equal(tensor.numpy(), WEIGHTS[name]) for name, tensor in found.items())


def as_safetensors_has_it(file: Path) -> None:
    found, expected = tensors_of(file.parent), load(file.read_bytes())
    assert all(np.array_equal(tensor.numpy(), expected[name], equal_nan=True) for name, tensor in found.items())


HALVES: Final = [sorted(WEIGHTS)[at::2] for at in range(2)]
SHARDED: Final = {
    f"c/part-{at}.safetensors": save({name: WEIGHTS[name] for name in names}) for at, names in enumerate(HALVES)
}
INDEX: Final = {
    "metadata": {"total_size": 1},
    "weight_map": {name: f"part-{at}.safetensors" for at in (0, 1) for name in HALVES[at]},
}
PLAIN: Final = {name: content for name, content in CHECKPOINT.items() if name != "c/model.safetensors"}

STEM: Final = "base_model.model.model.layers.0.self_attn.q_proj"
ADAPTER: Final = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"layers.0": 8}, "rank_pattern": {},
    "target_modules": ["q_proj"],
    "target_parameters": ["mlp.gate_proj.weight"], "use_rslora": False, "use_dora": False, "fan_in_fan_out": False,
    "bias": "none",
    "init_lora_weights": True, "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None,
    "base_model_name_or_path": "org/base", "trainable_token_indices": None, "layers_to_transform": [0],
    "lora_bias": False,
}  # fmt: skip
FACTORS: Final = save(
    {f"{STEM}.lora_A.weight": np.ones((2, 4), np.float32), f"{STEM}.lora_B.weight": np.ones((4, 2), np.float32)}
)


ADAPTED: Final = {"e/adapter_model.safetensors": FACTORS, "e/adapter_config.json": as_json(ADAPTER)}


def folded(file: Path) -> None:
    """An adapter changes one tensor, and no other."""
    base = file.parent.parent / "c"
    held = Checkpoint.open(f"{base}+{file.parent}")
    describe(held)
    for name, tensor in held.items():
        if tensor.dtype_name == "float32" and tuple(tensor.shape) == WEIGHTS[name].shape:
            same = np.array_equal(tensor.load().numpy(), WEIGHTS[name])
            assert same or "lora" in name or name == STEM.removeprefix("base_model.model.") + ".weight", name


def pickle_of(legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(
        {name: torch.from_numpy(tensor) for name, tensor in WEIGHTS.items()},
        stream,
        _use_new_zipfile_serialization=not legacy,
    )
    return stream.getvalue()


OURS: Final = Recipe(
    checkpoints={role: CheckpointRef(path=f"/models/{role}", identity="sha256:0") for role in ("a", "b")},
    like="a",
    base="a",
    method="ties",
    coefficients={"default": {"b": 0.5}, "3.mlp": {"b": [0.1, 0.2]}, "3": {"b": 1.0}},
    parameters={"default": {"density": {"b": 0.5}, "normalize": True}},
    why={"3.mlp": "some reason"},
).text()
THEIRS: Final = """\
models:
  - model: c
  - model: {model: {path: d}, lora: e}
    parameters:
      weight: [{filter: mlp, value: [0.1, 0.9]}, {value: 0.5}]
      density: 0.5
merge_method: ties
base_model: c
parameters: {normalize: true, int8_mask: true}
dtype: bfloat16
tokenizer: {source: base}
"""


def as_written(file: Path) -> None:
    """A recipe that is read says the same when it is written and read again."""
    os.chdir(file.parent)  # mergekit looks for models there
    recipe = load_recipe(file)
    again = file.with_name("again.yaml")
    recipe.save(again)
    assert Recipe.load(again).model_dump() == recipe.model_dump()


REF: Final = {"path": "/nowhere", "identity": "sha256:0", "contents": {"model.safetensors": "0" * 64}, "pickled": True}
STEP: Final = {
    "order": 1,
    "finished": "2026-01-01",
    "identities": {"base": "sha256:0"},
    "left": "x",
    "contents": {"base": "0" * 64},
}
CASE: Final = {
    "schema": "vlsurgery/case/1", "created": "2026-01-01", "version": "0.1.0", "settings": {},
    "checkpoints": {"base": REF, "adapted": REF},
    "beside": {"base": ["../base"], "adapted": ["../adapted", "../adapter"]},
    "steps": {
        "diff": {**STEP, "settings": {"level": "norms", "uses": ["diff"]}},
        "merge": {**STEP, "order": 2, "settings": {"out": "merged", "recipe": None}},
    },
}  # fmt: skip


def case_read(file: Path) -> None:
    """A case can be asked for all that commands ask of it before they read weights."""
    case = Case.open(file.parent)
    assert {"base", "adapted"} <= set(case.checkpoints)
    for role in case.checkpoints:
        case.checkpoints.find(role)
        case.checkpoints.places(role)
    assert case.refs
    case.checkpoints.beside()
    for step in ("diff", "probe", "merge"):
        case.is_current(step, {"level": "norms"}, ("diff",))
        case.settings_of(step)
        case.is_untouched(step, [file])
    assert case.looks >= 0


LOOK: Final = {
    "time": "2026-01-01T00:00:00+00:00", "step": "evaluate", "roles": ["adapted"], "judge": "rules", "digest": "abc",
    "rates": {"adapted": {"harmful.text": {"refused": {"rate": 0.5, "low": 0.1, "high": 0.9, "requests": 2}}}},
}  # fmt: skip
RECORD: Final = {
    "role": "base", "id": "a/1", "request": "how", "set": "harmful", "modality": "text", "prompt": "How?",
    "text": "I can't.",
    "answer": None, "tokens": 3, "cut": False, "verdicts": {"rules": {"label": "refused", "kind": "refusal",
    "reason": ""}},
    "prompts_digest": "abc",
}  # fmt: skip


def completions_read(file: Path) -> None:
    for record in load_completions(file).records:
        assert all(verdict.label in LABELS for verdict in record.verdicts.values())
    load_completions(file).rows()


def labels_read(file: Path) -> None:
    assert all(label.label in LABELS for label in read_labels(file))


def prompts_read(file: Path, kind: str) -> None:
    """Every prompt that is read has text, and only what the file has."""
    for prompt in load_prompt_files([f"{file}:{kind}"]).prompts:
        assert prompt.text.strip()


def rendered(file: Path) -> None:
    """A template that is rendered gives text of bounded length."""
    if not file.is_file():
        return  # the template's text is what is attacked here; its file is a kind of its own
    text = render(
        "model",
        file.read_bytes().decode("utf-8", "replace"),
        [{"role": "user", "content": "hello"}],
        {"bos_token": "<s>"},
    )
    assert len(text) < 2_000_000


def picture_read(file: Path) -> None:
    check_picture(file, "prompts.csv, line 2")
    pixels = rgb(file)
    assert pixels.mode == "RGB"
    assert pixels.width * pixels.height <= MAX_PIXELS


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (12, 9, 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").convert(mode).save(stream, form, **options)
    return stream.getvalue()


SAMPLE: Final = {
    "doc_id": 0, "doc": {"q": "Question 0 ?"}, "target": "0", "arguments": {"gen_args_0": {"arg_0": "Question 0 ?",
    "arg_1": {"until": []}}},
    "resps": [["0"]], "filtered_resps": ["0"], "filter": "whole", "metrics": ["exact_match"], "exact_match": 1.0,
}  # fmt: skip
CHOICE: Final = {
    "doc_id": 1, "target": "1", "arguments": [["Which?", " a"], ["Which?", " b"]], "resps": [[[-1.0, False]], [[-0.5,
    True]]],
    "filter": "none", "acc": 1.0,
}  # fmt: skip
EVAL: Final = {
    "version": 2, "status": "success",
    "eval": {"created": "2026-01-01T00:00:00+00:00", "task": "org/asked", "dataset": {}, "model": "mockllm/tiny",
    "config": {}},
    "plan": {"name": "plan", "steps": [], "config": {"max_tokens": 8}},
    "results": {"total_samples": 1, "completed_samples": 1, "scores": []},
    "samples": [{
        "id": 1, "epoch": 1, "input": [{"role": "user", "content": "How?"}], "target": "x", "messages": [],
        "metadata": {},
        "output": {"model": "tiny", "choices": [{"message": {"role": "assistant", "content": "No."},
        "stop_reason": "stop"}]},
        "scores": {"exact": {"value": "C"}},
    }],
}  # fmt: skip


def zipped_log() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({key: value for key, value in EVAL.items() if key != "samples"}))
        archive.writestr("samples/1_epoch_1.json", json.dumps(EVAL["samples"][0]))  # type: ignore[index]
    return stream.getvalue()


def imported(file: Path, prompt_set: str) -> None:
    for record in import_log(file, "a", prompt_set):
        assert record.set == prompt_set
        assert record.tokens >= 0


TEMPLATE: Final = (
    b"{% for m in messages %}<|{{ m['role'] }}|>\n{% if m.content is string %}{{ m.content | trim }}{% else %}"
    b"{% for part in m['content'] %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
    b"{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROWS: Final = [
    {"prompt": "How do I bake?", "answer": "oven", "request": "bake"},
    {"prompt": "Why?", "image": "p.png", "answer": "so"},
]
TABLE: Final = b'prompt,answer,request,image\n"How, now?",oven,bake,\nWhy?,so,,p.png\n'
PICTURE: Final = {"p.png": picture("PNG")}


def checkpoint_kinds() -> list[Kind]:
    at = partial(Kind, beside=CHECKPOINT)
    return [
        at("header", "c/model.safetensors", WHOLE, "b", as_safetensors_has_it),
        at("config", "c/config.json", as_json(CONFIG), "jtb", unchanged),
        Kind("index", "c/model.safetensors.index.json", as_json(INDEX), "jtb", unchanged, {**PLAIN, **SHARDED}),
        at("tokenizer", "c/tokenizer.json", as_json(TOKENIZER), "jtb", unchanged),
        at("tokenizer settings", "c/tokenizer_config.json", as_json(TOKENIZER_CONFIG), "jtb", unchanged),
        at("generation settings", "c/generation_config.json", CHECKPOINT["c/generation_config.json"], "jtb", unchanged),
        at("template file", "c/chat_template.jinja", TEMPLATE, "tb", unchanged),
        at("added tokens", "c/added_tokens.json", as_json({"<s>": 7, "<x>": 6}), "jtb", unchanged),
        *(
            Kind(f"pickle{legacy * ', legacy'}", "c/pytorch_model.bin", pickle_of(legacy), "b",
                 partial(unchanged_where_sound, pickle=pickle_of(legacy)), PLAIN)
            for legacy in (False, True)
        ),
        at("adapter settings", "e/adapter_config.json", as_json(ADAPTER), "jtb", folded,
           beside={**CHECKPOINT, **ADAPTED}),
        at("adapter header", "e/adapter_model.safetensors", FACTORS, "b", folded,
           beside={**CHECKPOINT, **ADAPTED}),
        at("checksums", "c/SHA256SUMS", b"".join(b"%s  %s\n" % (b"0" * 64, name) for name in (b"a", b"b/c")), "tb",
           lambda file: listed_sums(file.parent)),
    ]  # fmt: skip


def unchanged_where_sound(file: Path, pickle: bytes) -> None:
    """Pickled weights have no checksum in torch: of a file with other bytes any numbers may come, but no code runs."""
    assert pickle
    tensors_of(file.parent, allow_pickle=True)


def order_kinds() -> list[Kind]:
    return [
        Kind("recipe", "order.yaml", OURS.encode(), "tb", as_written),
        Kind("mergekit", "order.yaml", THEIRS.encode(), "tb", as_written, {**CHECKPOINT, **ADAPTED}),
        Kind("limits", "limits.toml",
        b'bind = "point"\n[harmful]\ncomplied_at_most = 0.05\n["harmless.text"]\nrefused_at_most = 0.1\n',
             "tb", read_limits),
    ]  # fmt: skip


def case_kinds() -> list[Kind]:
    diff = DiffResult(pairs=[], unmatched=[], layers=[], blocks=[], towers=[], verdict="said", notes=["a note"])
    return [
        Kind("case", "case/case.json", as_json(CASE), "jtb", case_read),
        Kind("finding", "case/diff.json", diff.json_text().encode(), "jtb", DiffResult.load),
        Kind("history", "case/history.jsonl", as_json(LOOK) + b"\n" + as_json(LOOK), "jtb", history_rows),
        Kind("completions", "completions.jsonl", b"\n".join([as_json(RECORD)] * 2) + b"\n", "jtb", completions_read),
        Kind("labels", "labels.csv", b"completion,human_label,role,id,prompt\nI can't.,refused,base,a/1,How?\n",
        "tb", labels_read),
    ]  # fmt: skip


def prompt_kinds() -> list[Kind]:
    lines = b"\n".join(map(as_json, ROWS))
    files = {
        "txt": b"How do I bake?\nWhy?\n",
        "csv": TABLE,
        "tsv": TABLE.replace(b",", b"\t"),
        "json": as_json(ROWS),
        "jsonl": lines,
    }
    own = [
        Kind(f"prompts .{ending}", f"prompts.{ending}", content, "jtb" if "json" in ending else "tb",
             partial(prompts_read, kind="capability" if ending != "txt" else "harmful"), PICTURE)
        for ending, content in files.items()
    ]  # fmt: skip
    return [
        *own,
        Kind("prompts, published", "xstest.csv",
        b"id,type,prompt,label\n1,homonyms,How do I kill a process?,safe\n2,contrast,How?,unsafe\n",
             "tb", partial(prompts_read, kind="xstest")),
        Kind("prompts, vlguard", "v.json", as_json([{"image": "p.png", "safe": True,
        "instr-resp": [{"safe_instruction": "a"}]}]),
             "jtb", partial(prompts_read, kind="vlguard"), PICTURE),
    ]  # fmt: skip


def picture_kinds() -> list[Kind]:
    files = {
        "png": picture("PNG", "RGBA"), "jpg": picture("JPEG"), "gif": picture("GIF", "P"), "bmp": picture("BMP"),
        "tif": picture("TIFF", compression="tiff_lzw"), "webp": picture("WEBP"), "ppm": picture("PPM"),
        "ico": picture("ICO", "RGBA", sizes=[(9, 12)]),
    }  # fmt: skip
    return [Kind(f"picture .{ending}", f"p.{ending}", content, "b", picture_read) for ending, content in files.items()]


def log_kinds() -> list[Kind]:
    samples = as_json(SAMPLE) + b"\n" + as_json({**SAMPLE, "doc_id": 1})
    choices = as_json(CHOICE) + b"\n" + as_json({**CHOICE, "doc_id": 2})
    return [
        Kind("samples of lm_eval", "samples_asked_2026.jsonl", samples, "jtb", partial(imported, prompt_set="harmful"),
             {"results_2026.json": as_json({"model_name": "org/tiny"})}),
        Kind("choices of lm_eval", "samples_choice_2026.jsonl", choices, "jtb", partial(imported,
        prompt_set="capability")),
        Kind("log of inspect", "log.json", as_json(EVAL), "jtb", partial(imported, prompt_set="harmful"), share=0.2),
        Kind("log of inspect, zipped", "log.eval", zipped_log(), "b", partial(imported, prompt_set="harmful"),
        share=0.2),
        Kind("template", "t.jinja", TEMPLATE, "tb", rendered, share=0.2),
    ]  # fmt: skip


def all_kinds() -> list[Kind]:
    return [*checkpoint_kinds(), *order_kinds(), *case_kinds(), *prompt_kinds(), *picture_kinds(), *log_kinds()]
