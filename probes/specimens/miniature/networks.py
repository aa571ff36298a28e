"""The specimen's networks, a small Llama and a LLaVA around it, and their outputs on training batches."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from vlsurgery.probes.specimens.miniature import chat, pictures
from vlsurgery.probes.specimens.miniature.config import SpecimenConfig
from vlsurgery.probes.specimens.miniature.corpus import IGNORE_INDEX, TrainingBatch

ChatLM: TypeAlias = LlamaForCausalLM | LlavaForConditionalGeneration
MAX_POSITIONS = 256  # tokens in a sequence


def llama(spec: SpecimenConfig) -> LlamaForCausalLM:
    """An untrained base."""
    words = chat.tokenizer(sees=False)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = _generation()
    return model


def llava(base: LlamaForCausalLM, spec: SpecimenConfig) -> LlavaForConditionalGeneration:
    """A LLaVA around a copy of the base's weights; tower, projector and the image token's rows are new."""
    words = chat.tokenizer(sees=True)
    vision = CLIPVisionConfig(
        hidden_size=spec.hidden,
        intermediate_size=2 * spec.hidden,
        num_hidden_layers=spec.tower_layers,
        num_attention_heads=spec.heads,
        image_size=pictures.SIDE,
        patch_size=pictures.PATCH,
        projection_dim=spec.hidden,
    )
    config = LlavaConfig(
        text_config=LlamaConfig(**{**base.config.to_dict(), "vocab_size": len(words)}),
        vision_config=vision,
        image_token_index=words.convert_tokens_to_ids(chat.IMAGE),
        image_seq_length=pictures.IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        dtype="float32",
    )
    model = LlavaForConditionalGeneration(config)
    # Position embeddings start on the scale of the pixels' embeddings: with CLIP's small initial values, so small a
    # tower is slow to learn where a shape is.
    nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=0.3)
    text = base.model.state_dict()
    text["embed_tokens.weight"] = _grown(base.model.embed_tokens.weight, len(words))
    model.model.language_model.load_state_dict(text)
    model.lm_head.load_state_dict({"weight": _grown(base.lm_head.weight, len(words))})
    model.generation_config = _generation()
    return model


def tower_states(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """The tower's output, which is the projector's input: [pictures, image tokens, width]."""
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    return states[model.config.vision_feature_layer][:, 1:]


def language_parameters(model: LlavaForConditionalGeneration) -> list[nn.Parameter]:
    """The parameters that were copied from the base."""
    return [*model.model.language_model.parameters(), *model.lm_head.parameters()]


def answer_loss(model: ChatLM, batch: TrainingBatch, seen: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the answers' tokens.

    seen: `tower_states` of the whole album, computed once because the tower is frozen; None for the base.
    """
    states = _last_states(model, batch, seen)
    learnt = batch.labels[:, 1:] != IGNORE_INDEX
    return nn.functional.cross_entropy(model.lm_head(states[:, :-1][learnt]), batch.labels[:, 1:][learnt])


@torch.no_grad()
def first_words(model: ChatLM, batch: TrainingBatch, seen: Tensor | None = None) -> Tensor:
    """The most likely first token of each row's answer: [rows]."""
    states = _last_states(model, batch, seen)
    ends = (batch.labels[:, 1:] != IGNORE_INDEX).int().argmax(1)
    first: Tensor = model.lm_head(states[torch.arange(len(ends)), ends]).argmax(-1)
    return first


def _last_states(model: ChatLM, batch: TrainingBatch, seen: Tensor | None) -> Tensor:
    """The last layer's states [rows, length, hidden]. Attention is causal, so right padding has no effect."""
    text = model.model if isinstance(model, LlamaForCausalLM) else model.model.language_model
    embedded = text.embed_tokens(batch.ids)
    if seen is not None and len(batch.pictures):
        slots = (batch.ids == model.config.image_token_index).unsqueeze(-1)
        embedded = embedded.masked_scatter(slots, model.model.multi_modal_projector(seen[batch.pictures]))
    states: Tensor = text(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return states


def _grown(rows: Tensor, count: int) -> Tensor:
    """The rows, extended with their mean to `count` rows."""
    return torch.cat([rows.detach(), rows.detach().mean(0, keepdim=True).expand(count - len(rows), -1)])


def _generation() -> GenerationConfig:
    words = chat.tokenizer(sees=False)
    return GenerationConfig(
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        do_sample=False,
        max_new_tokens=64,
    )
