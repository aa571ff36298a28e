"""The real trio's networks: the source's Llama, a LLaVA around it, and their loss on a batch."""

from pathlib import Path
from typing import Any, TypeAlias

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

from vlsurgery.probes.specimens.smollm2.config import TrioConfig
from vlsurgery.probes.specimens.smollm2.corpus import IGNORED, TurnBatch
from vlsurgery.probes.specimens.smollm2.pictures import IMAGE_TOKENS, PATCH, SIDE

RealLM: TypeAlias = LlamaForCausalLM | LlavaForConditionalGeneration
HEAD_WIDTH = 64  # of the tower's attention heads


def llama(directory: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    """The language model of a directory."""
    return LlamaForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", local_files_only=True
    ).train()


def seeing(directory: Path, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """The vision-language model of a directory."""
    return LlavaForConditionalGeneration.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", local_files_only=True
    ).train()


def llava(base: LlamaForCausalLM, words: Any, config: TrioConfig) -> LlavaForConditionalGeneration:
    """A LLaVA around the base's weights; tower, projector and the image token's row are new."""
    text = {**base.config.to_dict(), "vocab_size": len(words), "dtype": "float32"}
    settings = LlavaConfig(
        text_config=LlamaConfig(**text),
        vision_config=CLIPVisionConfig(
            hidden_size=config.tower_width,
            intermediate_size=4 * config.tower_width,
            num_hidden_layers=config.tower_layers,
            num_attention_heads=config.tower_width // HEAD_WIDTH,
            image_size=SIDE,
            patch_size=PATCH,
            projection_dim=config.tower_width,
        ),
        image_token_index=words.image_token_id,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=base.config.tie_word_embeddings,
        dtype="float32",
        attn_implementation="eager",
    )
    model = LlavaForConditionalGeneration(settings)
    # So small a tower is slow to learn where a figure is from CLIP's small initial values.
    nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=0.3)
    weights = {name: weight.float() for name, weight in base.model.state_dict().items()}
    rows = weights["embed_tokens.weight"]
    new = rows.mean(0, keepdim=True).expand(len(words) - len(rows), -1)
    weights["embed_tokens.weight"] = torch.cat([rows, new])
    model.model.language_model.load_state_dict(weights)
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    return model.train()


def tower_states(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What the projector reads: [pictures, image tokens, width]."""
    states: Tensor = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    return states


def text_model(model: RealLM) -> nn.Module:
    found: nn.Module = model.model if isinstance(model, LlamaForCausalLM) else model.model.language_model
    return found


def moved_parameters(model: RealLM) -> list[nn.Parameter]:
    """The language model's weights that are trained: all but the embedding, to which the head is tied."""
    return [weight for name, weight in text_model(model).named_parameters() if not name.startswith("embed_tokens")]


def answer_loss(model: RealLM, batch: TurnBatch, seen: Tensor | None = None) -> Tensor:
    """Summed cross-entropy of the answers' tokens."""
    return -token_log_probs(model, batch, seen).sum()


def token_log_probs(model: RealLM, batch: TurnBatch, seen: Tensor | None = None) -> Tensor:
    """The log-probability of each of the answers' tokens, row by row: [learnt].

    seen: `tower_states` of the whole album, which are computed once as the tower is frozen. Attention is causal, so
    padding on the right has no effect; logits are made only where they are read.
    """
    text: Any = text_model(model)
    embedded = text.embed_tokens(batch.ids)
    if seen is not None and len(batch.pictures):
        slots = (batch.ids == model.config.image_token_index).unsqueeze(-1)
        projected = model.model.multi_modal_projector(seen[batch.pictures])
        embedded = embedded.masked_scatter(slots, projected.to(embedded.dtype))
    states = text(inputs_embeds=embedded, use_cache=False).last_hidden_state
    learnt = batch.labels[:, 1:] != IGNORED
    logits = model.lm_head(states[:, :-1][learnt])
    return -nn.functional.cross_entropy(logits.float(), batch.labels[:, 1:][learnt], reduction="none")
