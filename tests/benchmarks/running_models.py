"""Trios of random weights in real shapes, in the specimen's words: what running a model of that size takes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from vlsurgery.probes.specimens.miniature import chat, pictures
from vlsurgery.probes.targets import LostRefusal, WorkingSet


@dataclass(frozen=True)
class TextShape:
    """A Llama's text stack."""

    hidden: int
    wide: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool


SMOLLM2 = TextShape(576, 1536, 30, 9, 3, 49_152, tied=True)  # SmolLM2-135M
BILLION = TextShape(1536, 6144, 18, 12, 4, 152_000, tied=False)  # 1.1 B parameters


def text_config(shape: TextShape) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.wide,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=2048,
    )


def build(folder: Path, shape: TextShape, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write base, adapted and safety of a shape to `folder`, where they are not there already."""
    if (folder / "safety" / "config.json").exists():
        return
    torch.manual_seed(0)
    processor = chat.processor()
    tokenizer = processor.tokenizer
    generation = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=pictures.SIDE,
        patch_size=pictures.PATCH,
    )
    config = LlavaConfig(
        text_config=text_config(shape),
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids(chat.IMAGE),
        image_seq_length=pictures.IMAGE_TOKENS,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=shape.tied,
    )
    torch.set_default_dtype(dtype)
    try:
        adapted = LlavaForConditionalGeneration(config)
        base = LlamaForCausalLM(text_config(shape))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, value in base.state_dict().items():
            other = adapted.state_dict().get(name.replace("model.", "model.language_model.", 1))
            value.copy_((adapted.lm_head.weight if other is None else other) + 0.002 * torch.randn_like(value))
    for model, role in ((base, "base"), (adapted, "adapted")):
        model.generation_config = generation
        model.save_pretrained(folder / role)
        processor.save_pretrained(folder / role) if role == "adapted" else tokenizer.save_pretrained(folder / role)
    with torch.no_grad():
        for value in adapted.model.language_model.parameters():
            value.add_(0.002 * torch.randn_like(value))
    adapted.save_pretrained(folder / "safety")
    processor.save_pretrained(folder / "safety")


def working(tokenizer, count: int) -> WorkingSet:
    """Prompts of the specimen, with and without pictures, of which all refusals count as lost."""
    from vlsurgery.probes.specimens.miniature import prompts

    every = [p for p in prompts(0) if p.split == "fit" and p.modality in ("text", "benign", "own")]
    some = every[:: max(1, len(every) // count)][:count]
    refusal, answer = (
        torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in ("i can not help with that . " * 2, "use the tool and then " * 3)
    )
    return WorkingSet(
        refuse=tuple((prompt, refusal) for prompt in some),
        lost=tuple(LostRefusal(prompt, refusal, answer) for prompt in some),
        keep=tuple((prompt, answer) for prompt in some),
    )
