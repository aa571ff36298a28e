"""How many architectures align: tiny trios of every vision-language class of transformers, in both naming layouts.

Ground truth comes from the values, never from names: every entry of a base's weights is a whole number that occurs
once in it. The vision-language model is filled from the base module by module (`get_decoder`, embeddings), plus a
delta below one half, so that rounding an entry of any file, however its tensors were renamed, fused, split or
transposed, tells which entry of the base it grew from.

    python tests/benchmarks/architectures.py [--only NAME ...] [--keep DIR] [--renamed]

A class is perfect when every entry that has a partner is paired with it, wrong when any is paired with another.
"""

import argparse
import contextlib
import json
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor, nn

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

# Their extra rows stay the adapted model's, whoever else has them.
VOCABULARY_SITES = ("embed", "head", "head.bias")

LAYOUTS = {"legacy": True, "native": False}

# Model types of language models whose architecture a vision-language model took over under a type of its own.
PARENTS = {
    "chameleon": "llama", "emu3_text_model": "llama", "ernie4_5_vl_moe_text": "ernie4_5_moe", "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4_moe", "granite_docling_text": "granite", "granite4_vision_text": "granite",
    "hunyuan_vl_text": "hunyuan_v1_dense", "idefics": "llama", "mllama_text_model": "llama",
    "mistral4": "deepseek_v3", "molmo2_text": "qwen3", "paddleocr_vl_text": "ernie4_5", "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2", "qwen2_5_omni_text": "qwen2", "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe", "qwen3_omni_moe_text": "qwen3_moe", "voxtral_realtime_text": "mistral",
    "glm_ocr_text": "glm4",
    "diffusion_gemma_text": "gemma4_text",
}  # fmt: skip

# Not a causal language model that learned to see: encoder-decoders, captioners and models of their own making.
SKIPPED = {
    "blip", "florence2", "git", "pix2struct", "pp_formulanet", "t5gemma2", "udop", "vision-encoder-decoder", "evolla",
    "mistral4", "pi0",
}  # fmt: skip

# More entries than any of the models has.
MIDDLE = 8_000_000

TEXT_DEPTH, TOWER_DEPTH, VOCABULARY = 4, 2, 96

# Sizes of tiny configs by the name of the field; text first, other towers second.
SIZES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "width"), (32, 16)),
    **dict.fromkeys((
    "num_hidden_layers", "n_layer", "num_layers", "depth", "n_layers", "encoder_layers"), (TEXT_DEPTH, TOWER_DEPTH)),
    **dict.fromkeys((
    "num_attention_heads", "n_head", "num_heads", "attention_heads", "encoder_attention_heads"), (4, 2)),
    **dict.fromkeys(("num_key_value_heads", "num_global_key_value_heads"), (2, 2)),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "mlp_dim", "encoder_ffn_dim"), (48, 24)),
    **dict.fromkeys(("moe_intermediate_size", "expert_intermediate_size", "shared_expert_intermediate_size"), (20, 20)),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), (4, 4)),
    **dict.fromkeys(("head_dim", "attention_head_dim", "global_head_dim"), (8, 8)),
}  # fmt: skip


# Of language models whose layers differ: what their configs are made with, because no field of one can change alone.
TEXT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "diffusion_gemma": {
        "num_hidden_layers": TEXT_DEPTH, "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 8,
        "global_head_dim": 16, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 20,
    },
    "dots3_note": {
        "num_hidden_layers": TEXT_DEPTH, "num_attention_heads": 4, "num_key_value_heads": 4,
        "q_lora_rank": 12, "kv_lora_rank": 8, "head_dim": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
        "v_head_dim": 8, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_q_lora_rank": 12,
        "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 12, "swa_v_head_dim": 8,
        "shared_experts_intermediate_size": 20, "index_n_heads": 2, "index_head_dim": 4,
    },
}  # fmt: skip


DEPTHS = ("num_hidden_layers", "depth", "n_layer", "num_layers")
LARGE = re.compile(r"(size|dim|dims|rank|hidden|channels?|width|features|filters)$|lora|neurons")
SPECIAL_FIELDS = {
    "image_size": 56, "kv_lora_rank": 8, "q_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "linear_key_head_dim": 4, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "n_group": 1, "topk_group": 1,
    "out_hidden_size": 32, "text_hidden_size": 32, "index_n_heads": 2, "index_head_dim": 4,
    "projection_dim": 32, "upsampling_ratios": [2],
    "n_groups": 2, "mamba_n_groups": 2, "cross_attention_layers": [1, 3],
}  # fmt: skip


@dataclass
class Score:
    """entries: with a partner. found, wrong: entries paired. problems: the first tensors that were missed or wrong."""

    name: str
    entries: int = 0
    found: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.wrong:
            return "WRONG"
        if not self.entries:
            return "refused"
        return "perfect" if self.found == self.entries and not self.problems else "missed"


def tiny(name: str) -> Any:
    """A model type's config with few layers, narrow matrices and a small vocabulary; nothing is ever run, so sizes
    need only be good enough to build modules from."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    arguments = {"text_config": dict(TEXT_ARGUMENTS[name])} if name in TEXT_ARGUMENTS else {}
    config = CONFIG_MAPPING[name](**arguments)
    text = config.get_text_config()
    for part in _parts(config):
        _shrink(part, is_text=part is text or part.model_type == text.model_type)
    _special(config, text)
    return config


def _parts(config: Any) -> Iterator[Any]:
    """A config and every config inside of it."""
    yield config
    for value in list(vars(config).values()):
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            yield from _parts(value)


def _shrink(config: Any, is_text: bool) -> None:
    """Small numbers for everything that makes a model large, by the names of the fields."""
    fixed = TEXT_ARGUMENTS.get(config.model_type.removesuffix("_text"), {}) if is_text else {}
    known = {config.attribute_map.get(name, name): size for name, size in SIZES.items()} | SIZES
    depths = [vars(config).get(config.attribute_map.get(name, name)) for name in DEPTHS]
    for key, value in list(vars(config).items()):
        if key in fixed or key == "per_layer_config":
            continue
        if isinstance(value, dict) and "mrope_section" in value:
            value["mrope_section"] = [2, 1, 1]
        elif key in SPECIAL_FIELDS and isinstance(value, type(SPECIAL_FIELDS[key])):
            setattr(config, key, SPECIAL_FIELDS[key])
        elif isinstance(value, (list, tuple)) and len(value) in depths and len(value) > 1:
            setattr(config, key, list(value)[: TEXT_DEPTH if is_text else TOWER_DEPTH])
        elif value is None and key in ("head_dim", "v_head_dim", "hidden_size_per_layer_input"):
            setattr(config, key, 8)
        elif isinstance(value, int) and not isinstance(value, bool):
            if key in known:
                setattr(config, key, known[key][0 if is_text else 1])
            elif "vocab_size" in key:
                setattr(config, key, VOCABULARY)
            elif key.endswith(("token_id", "token_index")) and value > 60:
                setattr(config, key, 1 + value % 60)
            elif value >= 128 and LARGE.search(key):
                setattr(config, key, 32)


def _special(config: Any, text: Any) -> None:
    """What few families need beyond the general rules."""
    kind = config.model_type
    if kind == "glm5_next":
        text.num_key_value_heads, text.qk_rope_head_dim = text.num_attention_heads, 0
    elif kind in ("chameleon", "emu3"):
        config.vocabulary_map = {"<image>": 5, "<|extra_200|>": 6}
    elif kind == "qwen3_omni_moe":
        config.enable_audio_output = False
    elif kind == "cohere_compass":
        text.rope_parameters = {word: {"rope_type": "default", "rope_theta": 1e4} for word in set(text.layer_types)}
    elif kind == "deepseek_ocr2":
        text.mlp_layer_types = ["dense", "sparse", "sparse", "sparse"]
    elif kind == "molmo2":
        config.adapter_config.vision_feature_layer = [-1, -2]
    elif kind == "step3p7":
        text.rope_parameters = {
            "rope_type": "default", "rope_theta": 1e4,
            **{word: {"rope_type": "default", "rope_theta": 1e4} for word in set(text.layer_types)},
        }  # fmt: skip
    elif kind == "gemma3n":
        text.layer_types = ["sliding_attention", "full_attention"] * 2
        text.num_kv_shared_layers = 0
    elif kind == "fun_asr_nano":
        config.adaptor_config.hidden_size, config.adaptor_config.intermediate_size = 32, 8
    elif kind == "granite4_vision":
        config.deepstack_layer_map, config.downsample_rate = [(0, 1)], "1/2"
    elif kind == "ernie4_5_vl_moe":
        text.hidden_size, text.moe_intermediate_size = 512, [20, 12]
    elif kind == "qwen4_exp":
        text.indexer_compress_ratio, text.indexer_budget = 4, 16
        text.indexer_n_heads, text.indexer_kv_heads, text.indexer_head_dim = 2, 1, 8
    elif kind == "perception_lm":
        config.vision_config.model_args = {"embed_dim": 16}
    elif kind == "vibevoice_asr":
        for codec in (config.acoustic_tokenizer_encoder_config, config.semantic_tokenizer_encoder_config):
            codec.num_filters, codec.downsampling_ratios, codec.depths = 4, [2], [1, 1]
        config.acoustic_tokenizer_chunk_size = config.acoustic_tokenizer_encoder_config.hop_length
    elif kind == "kyutai_speech_to_text":
        config.codec_config.upsample_groups = config.codec_config.hidden_size


def grown(config: Any) -> Any:
    """The config with eight more rows in its vocabulary."""
    text = config.get_text_config()
    for part in {id(config): config, id(text): text}.values():
        if isinstance(vars(part).get("vocab_size"), int):
            part.vocab_size = VOCABULARY + 8
    return config


@contextlib.contextmanager
def without_timm() -> Iterator[None]:
    """Vision towers that need a library of their own become small CLIP towers."""
    from transformers import AutoModel, CLIPVisionConfig

    original = AutoModel.from_config

    def from_config(config: Any, *args: Any, **options: Any) -> nn.Module:
        if (
            config.model_type == "timm_wrapper"
            or "Timm" in type(config).__name__
            or config.model_type == "gemma3n_vision"
        ):
            sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
            config = CLIPVisionConfig(**sizes, image_size=56, patch_size=28)
        return original(config, *args, **options)

    AutoModel.from_config = from_config
    try:
        yield
    finally:
        AutoModel.from_config = original


@dataclass
class Case:
    """Checkpoints on disk. bases: kind -> layout -> directory. adapted, safety: layout -> directory."""

    name: str
    bases: dict[str, dict[str, Path]]
    adapted: dict[str, Path]
    safety: dict[str, Path]
    unlinked: list[str]


def build(name: str, class_name: str, root: Path) -> Case:
    """Write the trio of one class."""
    import transformers

    folder = root / name
    if (folder / "case.json").exists():
        return _load(name, folder)
    with without_timm():
        model = getattr(transformers, class_name)(grown(tiny(name))).double()
        bases = _bases(model, tiny(name))
    _number(model, -1)
    case = Case(name, {}, {}, {}, [])
    for kind, base in bases.items():
        # Every kind of base gets numbers of its own, and the model is filled anew from each.
        _number(base, 1)
        case.unlinked += [f"{kind}: {rest}" for rest in _fill(model, base, name)]
        case.bases[kind] = _save(base, folder / f"base_{kind}")
        case.adapted |= {f"{kind}/{layout}": path for layout, path in _save(model, folder / f"adapted_{kind}").items()}
        with torch.no_grad():
            for parameter in _weights(model).values():
                parameter.add_(torch.rand_like(parameter) * 0.15)
        case.safety |= {f"{kind}/{layout}": path for layout, path in _save(model, folder / f"safety_{kind}").items()}
        _number(model, -1)
    text = json.dumps(
        {"bases": case.bases, "adapted": case.adapted, "safety": case.safety, "unlinked": case.unlinked}, default=str
    )
    (folder / "case.json").write_text(text)
    return case


def _load(name: str, folder: Path) -> Case:
    data = json.loads((folder / "case.json").read_text())
    return Case(
        name,
        {kind: {layout: Path(path) for layout, path in layouts.items()} for kind, layouts in data["bases"].items()},
        {key: Path(path) for key, path in data["adapted"].items()},
        {key: Path(path) for key, path in data["safety"].items()},
        data["unlinked"],
    )


def _bases(model: Any, config: Any) -> dict[str, Any]:
    """The language models that a class can have grown from: the causal one of its text config, the one whose
    architecture it took over, and the text model alone, without head."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    text = config.get_text_config()
    found: dict[str, Any] = {}
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING and text is not config:
        found["causal"] = AutoModelForCausalLM.from_config(text)
    if text.model_type in PARENTS:
        kept = {
            k: v for k, v in text.to_dict().items() if k not in ("model_type", "architectures", "transformers_version")
        }
        if text.model_type == "mllama_text_model":
            kept["num_hidden_layers"] = TEXT_DEPTH - 2
        kept.setdefault("head_dim", 8)
        kept["num_local_experts"] = kept.get("num_experts") or kept.get("num_local_experts")
        if isinstance(kept.get("moe_intermediate_size"), list):
            kept["moe_intermediate_size"] = kept["moe_intermediate_size"][0]
        parent = CONFIG_MAPPING[PARENTS[text.model_type]]
        known = set(parent().to_dict())
        found["parent"] = AutoModelForCausalLM.from_config(parent(**{k: v for k, v in kept.items() if k in known}))
    decoder = _decoder(model)
    if decoder is not model and hasattr(decoder, "save_pretrained"):
        found["bare"] = type(decoder)(decoder.config)
    return {kind: base.double() for kind, base in found.items()}


def _decoder(model: Any) -> Any:
    """The module that holds the layers of the language model."""
    model = getattr(model, "thinker", model)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for module in decoder.modules():
        if any(isinstance(child, nn.ModuleList) and len(child) > 1 for child in module.children()):
            return module
    return decoder


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Every floating-point tensor of a model once, tied ones under their first name."""
    seen: set[int] = set()
    found = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def _number(model: nn.Module, sign: int) -> None:
    """Give every entry of a model a whole number of its own, in a random order over the whole model, with a sign.

    Were each tensor given numbers in a row, any two fused tensors whose parts follow each other would look alike, as no
    weights of real models do.
    """
    weights = _weights(model).values()
    numbers = sign * (1 + torch.randperm(sum(tensor.numel() for tensor in weights)).double())
    with torch.no_grad():
        for tensor, own in zip(weights, numbers.split([tensor.numel() for tensor in weights]), strict=True):
            tensor.copy_(own.reshape(tensor.shape))


def _fill(model: Any, base: Any, name: str) -> list[str]:
    """Copy a base into the vision-language model module by module, with a delta; what has no twin is returned."""
    own, theirs = _decoder(model), _decoder(base)
    pairs = [
        (_twin(key, own.state_dict(), name, type(base).__name__), tensor, key)
        for key, tensor in theirs.state_dict().items()
    ]
    heads = [getattr(m, "get_output_embeddings", lambda: None)() for m in (getattr(model, "thinker", model), base)]
    if heads[0] is None and hasattr(model, "language_model"):
        heads[0] = model.language_model.get_output_embeddings()
    embeds = getattr(model, "thinker", model).get_input_embeddings()
    embeds = getattr(embeds, "embed_tokens", embeds)
    tied = heads[0] is not None and embeds is not None and heads[0].weight.data_ptr() == embeds.weight.data_ptr()
    if all(head is not None for head in heads) and not tied:
        pairs.append((heads[0].weight, heads[1].weight, "head"))
        if getattr(heads[1], "bias", None) is not None:
            pairs.append((heads[0].bias, heads[1].bias, "head.bias"))
    rest = []
    with torch.no_grad():
        for target, source, key in pairs:
            if target is None or not _put(target, source):
                rest.append(key)
    return rest


def _put(target: Tensor, source: Tensor) -> bool:
    if target.shape[1:] != source.shape[1:] or target.shape[:1] < source.shape[:1]:
        return False
    if target.is_floating_point() and target.numel():
        rows = slice(0, source.shape[0]) if source.ndim else ...
        target[rows] = source + torch.rand_like(source) * 0.15 + 0.1
    return True


def _twin(key: str, own: Mapping[str, Tensor], name: str, base: str) -> Tensor | None:
    """The tensor of the vision-language model's decoder that a tensor of the base's decoder became."""
    if name == "mllama" and base.startswith("Llama") and key.startswith("layers."):
        number = int(key.split(".")[1])
        plain = [i for i in range(TEXT_DEPTH) if i not in (1, 3)]
        key = f"layers.{plain[number]}." + key.split(".", 2)[2]
    if name == "ernie4_5_vl_moe" and base.startswith("Ernie4_5_Moe"):
        key = key.replace("mlp.experts.", "mlp.text_moe.experts.").replace("mlp.gate.", "mlp.text_moe.gate.")
    return own.get(key)


def _save(model: Any, folder: Path) -> dict[str, Path]:
    paths = {}
    for layout, original in LAYOUTS.items():
        paths[layout] = folder.with_name(f"{folder.name}_{layout}")
        model.save_pretrained(paths[layout], save_original_format=original)
    return paths


def score(case: Case) -> list[Score]:
    """Align the bases with the model in both layouts, and the model with its own fine-tune in the other layout."""
    scores = []
    for kind, layouts in case.bases.items():
        for base_layout, base in layouts.items():
            for layout in LAYOUTS:
                other = next(key for key in LAYOUTS if key != layout)
                roles = {
                    "base": base,
                    "adapted": case.adapted[f"{kind}/{layout}"],
                    "safety": case.safety[f"{kind}/{other}"],
                }
                scores.append(_score(f"{case.name} {kind} {base_layout}/{layout}", roles))
    return scores


def _score(label: str, paths: Mapping[str, Path]) -> Score:
    result = Score(label)
    try:
        checkpoints = {role: Checkpoint.open(path) for role, path in paths.items()}
        alignment = align(checkpoints)
    except SurgeryError as error:
        result.problems.append(f"refused: {error}")
        return result
    held = {role: {name: _whole(t.load()) for name, t in c.items() if t.is_float} for role, c in checkpoints.items()}
    for other in ("base", "safety"):
        _compare(result, alignment, held, _present(held[other].values()), other)
    return result


def _compare(
    result: Score, alignment: Alignment, held: dict[str, dict[str, Tensor]], theirs: Tensor, other: str
) -> None:
    """Entries of the adapted model that are in the other one too, against those that were paired with it."""
    covered = {name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in held["adapted"].items()}
    for pair in alignment.pairs:
        if other not in pair.parts:
            continue
        first, second = _whole(alignment.load(pair, "adapted")), _whole(alignment.load(pair, other))
        wrong = int((first != second).sum())
        if wrong:
            result.wrong += wrong
            result.problems.append(f"WRONG {pair.parts['adapted'].label()} with {other} {pair.parts[other].label()}")
        part = pair.parts["adapted"]
        # Rows of a vocabulary that one role lacks are nobody's pair.
        covered[part.name][... if pair.site.component in VOCABULARY_SITES else part.slices or ...] = True
    for name, tensor in held["adapted"].items():
        due = theirs[(tensor.long() + MIDDLE).clamp(0, 2 * MIDDLE)]
        result.entries += int(due.sum())
        result.found += int((due & covered[name]).sum())
        if (due & ~covered[name]).any():
            result.problems.append(f"missed {name} {tuple(tensor.shape)}, which {other} has")


def _present(tensors: Iterable[Tensor]) -> Tensor:
    """[2 MIDDLE + 1]: which numbers occur, -MIDDLE first. 0 and what lies outside are no numbers of ours."""
    found = torch.zeros(2 * MIDDLE + 1, dtype=torch.bool)
    for tensor in tensors:
        found[(tensor.long() + MIDDLE).clamp(0, 2 * MIDDLE)] = True
    found[[0, MIDDLE, -1]] = False
    return found


def _whole(tensor: Tensor) -> Tensor:
    return tensor.double().round()


def classes() -> dict[str, str]:
    """model type -> class name of everything that reads pictures (or sound) and text and writes text."""
    from transformers.models.auto import modeling_auto as auto

    found = {**auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, **auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    return {
        name: value if isinstance(value, str) else value[0]
        for name, value in sorted(found.items())
        if name not in SKIPPED
    }


def renamed(path: Path, seed: int) -> Path:
    """A copy of a checkpoint with every word of its module names changed, the same word always into the same."""
    goal = path.with_name(f"{path.name}_renamed")
    if not goal.exists():
        random = Random(seed)
        words: dict[str, str] = {}

        def other(word: str) -> str:
            fixed = word.isdecimal() or word in ("weight", "bias")
            return word if fixed else words.setdefault(word, "".join(random.choices(ascii_lowercase, k=9)))

        checkpoint = Checkpoint.open(path)
        tensors = {".".join(map(other, name.split("."))): tensor.load() for name, tensor in checkpoint.items()}
        goal.mkdir()
        save_file(tensors, goal / "model.safetensors", metadata={"format": "pt"})
        shutil.copy(path / "config.json", goal)
    return goal


def score_renamed(case: Case) -> list[Score]:
    """Align every base with the model under names that nobody knows."""
    return [
        _score(
            f"{case.name} {kind} renamed",
            {
                "base": layouts["legacy"],
                "adapted": renamed(case.adapted[f"{kind}/legacy"], len(case.name)),
                "safety": case.safety[f"{kind}/legacy"],
            },
        )
        for kind, layouts in case.bases.items()
    ]


def _build_or_tell(name: str, class_name: str, root: Path) -> Case | None:
    """A config that the general rules can't shrink is reported, not fatal: the sweep is about the others."""
    try:
        return build(name, class_name, root)
    except (TypeError, ValueError, KeyError, AttributeError, ImportError, RuntimeError, StrictDataclassError) as error:
        print(f"{name:24} not built: {' '.join(str(error).split())[:120]}")
        shutil.rmtree(root / name, ignore_errors=True)
        return None


def _report(name: str, scores: list[Score], details: int) -> str:
    verdict = max((score.verdict for score in scores), key=["perfect", "refused", "missed", "WRONG"].index)
    print(f"{name:24} {verdict:8} {len(scores)} alignments", flush=True)
    for result in scores:
        if result.problems:
            print(f"    {result.name}: {result.found} of {result.entries} entries, {result.wrong} wrong")
            for problem in result.problems[:details]:
                print(f"        {problem[:300]}")
    return verdict


def main() -> None:
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="model types; all where none is named")
    parser.add_argument("--keep", type=Path, help="where the checkpoints are kept, so that the next run is quick")
    parser.add_argument("--details", type=int, default=3, help="problems shown of each alignment")
    parser.add_argument("--renamed", action="store_true", help="change every module name of the model at random")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        for name, class_name in classes().items():
            if options.only and name not in options.only:
                continue
            case = _build_or_tell(name, class_name, options.keep or Path(temporary))
            if case is not None and case.bases:
                scores = score_renamed(case) if options.renamed else score(case)
                tally[_report(name, scores, options.details)] += 1
    print(", ".join(f"{count} {verdict}" for verdict, count in tally.most_common()))


if __name__ == "__main__":
    main()
