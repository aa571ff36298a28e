"""More families that are run: relatives of those in `table` with other towers, routers, masks or processors."""

from typing import Any

import transformers
from families.entries import Parts, Words, family
from families.table import (
    CROPPED,
    GEMMA_MARKS,
    GEMMA_NAMES,
    GLM,
    LLAVA,
    MROPE,
    PINPOINTS,
    PIXTRAL,
    QWEN,
    QWEN3_TEXT,
    QWEN3_VISION,
    QWEN_PICTURE,
    QWEN_VISION,
    SQUARE,
    llava_config,
    qwen_parts,
    siglip,
)  # fmt: skip
from families.tokens import BARE, GEMMA, SPOKEN, TAGGED

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@family("LLaVA-NeXT-Video", "<image>", ("<image>", "<video>"), SPOKEN, "llama")
def llava_next_video(words: Words) -> Parts:
    config = llava_config(
        words, transformers.LlavaNextVideoConfig, image_grid_pinpoints=PINPOINTS, image_seq_length=4,
        video_token_id=words.ids["<video>"], video_token_index=words.ids["<video>"],
    )  # fmt: skip
    sizes = {**CROPPED, "image_grid_pinpoints": PINPOINTS}
    return Parts(config, "LlavaNextVideoProcessor", "LlavaNextImageProcessor", sizes, LLAVA,
                 "LlavaNextVideoVideoProcessor")  # fmt: skip


@family("Granite Vision", "<image>", ("<image>",), TAGGED, "granite")
def granite_vision(words: Words) -> Parts:
    config = llava_config(
        words, transformers.LlavaNextConfig, "granite", "siglip_vision_model", image_grid_pinpoints=PINPOINTS,
        image_seq_length=4, vision_feature_layer=[-2, -1], vision_feature_select_strategy="full",
    )  # fmt: skip
    sizes = {"size": {"shortest_edge": 28}, "crop_size": SQUARE, "image_grid_pinpoints": PINPOINTS}
    options = {"patch_size": 14, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}
    return Parts(config, "LlavaNextProcessor", "LlavaNextImageProcessor", sizes, options)


@family("VideoLLaMA 3", "<image>", ("<image>", "<video>"), parent="qwen2", image_token="<image>", video_token="<video>")
def video_llama_3(words: Words) -> Parts:
    config = transformers.VideoLlama3Config(
        text_config={"model_type": "qwen2", **words.text()}, vision_config=siglip(patch_size=7),
        image_token_id=words.ids["<image>"], video_token_id=words.ids["<video>"],
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 1, "min_pixels": 14 * 14, "max_pixels": 28 * 28}
    return Parts(config, "VideoLlama3Processor", "VideoLlama3ImageProcessor", sizes, {}, "VideoLlama3VideoProcessor")


@family("Qwen3.5-MoE", QWEN_PICTURE, QWEN)
def qwen3_5_moe(words: Words) -> Parts:
    text = {
        "head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"] * 2, **MOE,
        "shared_expert_intermediate_size": 24,
        "rope_parameters": {**MROPE, "partial_rotary_factor": 0.5, "mrope_interleaved": True},
    }  # fmt: skip
    vision = {key: value for key, value in QWEN3_VISION.items() if key != "deepstack_visual_indexes"}
    return qwen_parts(words, transformers.Qwen3_5MoeConfig, "Qwen3VLProcessor", text, vision)


OMNI = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|audio_pad|>", "<|audio_start|>",
        "<|audio_end|>")  # fmt: skip


@family(
    "Qwen3-Omni (thinker)", QWEN_PICTURE, OMNI, parent="qwen3_moe", image_token=OMNI[2], video_token=OMNI[3],
    audio_token=OMNI[4], vision_bos_token=OMNI[0], vision_eos_token=OMNI[1], audio_bos_token=OMNI[5],
    audio_eos_token=OMNI[6],
)  # fmt: skip
def qwen3_omni(words: Words) -> Parts:
    sounds = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
              "output_dim": 32, "num_mel_bins": 16, "max_source_positions": 20, "n_window": 4,
              "downsample_hidden_size": 8}  # fmt: skip
    config = transformers.Qwen3OmniMoeThinkerConfig(
        audio_config=sounds, vision_config=QWEN3_VISION, text_config=words.text(**QWEN3_TEXT, **MOE),
        image_token_id=words.ids[OMNI[2]], video_token_id=words.ids[OMNI[3]], audio_token_id=words.ids[OMNI[4]],
        vision_start_token_id=words.ids[OMNI[0]], vision_end_token_id=words.ids[OMNI[1]],
        audio_start_token_id=words.ids[OMNI[5]], user_token_id=4,
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "min_pixels": 14 * 14, "max_pixels": 56 * 56}
    return Parts(config, "Qwen3OmniMoeProcessor", "Qwen2VLImageProcessor", sizes, {}, "Qwen2VLVideoProcessor",
                 {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16})  # fmt: skip


GLM_KEYS = ("image_start_token_id", "image_end_token_id", "image_token_id", "video_start_token_id",
            "video_end_token_id", "video_token_id")  # fmt: skip
GLM_PICTURE = "<|begin_of_image|><|image|><|end_of_image|>"
GLM_ROPE = {**MROPE, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}


def _glm(words: Words, config: Any, kind: str, **text: Any) -> Parts:
    made = config(
        text_config=words.text(rope_parameters=GLM_ROPE, **text), vision_config={**QWEN_VISION, "image_size": 56},
        **{key: words.ids[token] for key, token in zip(GLM_KEYS, GLM, strict=True)},
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "size": {"shortest_edge": 14 * 14 * 2, "longest_edge": 56 * 56 * 2}}
    return Parts(made, f"{kind}Processor", f"{kind}ImageProcessor", sizes, {}, f"{kind}VideoProcessor")


@family("GLM-4.5V", GLM_PICTURE, GLM, TAGGED, "glm4_moe")
def glm4v_moe(words: Words) -> Parts:
    return _glm(
        words, transformers.Glm4vMoeConfig, "Glm4v", moe_intermediate_size=24, num_experts_per_tok=2,
        n_routed_experts=4, head_dim=8,
    )  # fmt: skip


@family("GLM-4.6V", GLM_PICTURE, GLM, TAGGED, "glm4")
def glm46v(words: Words) -> Parts:
    return _glm(words, transformers.Glm46VConfig, "Glm46V")


@family("GLM-OCR", GLM_PICTURE, GLM, TAGGED, "glm4", base={"attention_bias": False})
def glm_ocr(words: Words) -> Parts:
    return _glm(words, transformers.GlmOcrConfig, "Glm46V", head_dim=8)


@family("Janus", "<image_placeholder>", ("<image_placeholder>", "<begin_of_image>", "<end_of_image>"), SPOKEN, "llama",
        image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>")  # fmt: skip
def janus(words: Words) -> Parts:
    config = transformers.JanusConfig(
        text_config={"model_type": "llama", **words.text()},
        vision_config={"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
                       "patch_size": 14, "mlp_ratio": 2.0, "projection_dim": 32, "num_image_tokens": 4,
                       "initializer_range": 0.2},
        vq_config={"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32,
                   "channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": 32, "num_patches": 2,
                   "image_token_embed_dim": 32},
        image_token_id=words.ids["<image_placeholder>"], tie_word_embeddings=False,
    )  # fmt: skip
    return Parts(config, "JanusProcessor", "JanusImageProcessor", {"size": SQUARE, "min_size": 7},
                 {"num_image_tokens": 4, "use_default_system_prompt": False})  # fmt: skip


SAM = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
       "output_channels": 8, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 24,
       "initializer_range": 0.2}  # fmt: skip


@family("GOT-OCR 2", "", ("<img>", "</img>", "<imgpad>"), BARE, "qwen2", image_token="<imgpad>",
        limit="it reads pages without a chat template, so pictures are refused")  # fmt: skip
def got_ocr2(words: Words) -> Parts:
    config = transformers.GotOcr2Config(
        text_config={"model_type": "qwen2", **words.text()},
        vision_config={**SAM, "image_size": 1024, "patch_size": 16},
        image_token_index=words.ids["<imgpad>"],
    )  # fmt: skip
    return Parts(config, "GotOcr2Processor", "GotOcr2ImageProcessor", {"size": {"height": 1024, "width": 1024}})


@family("LightOnOCR", "<|image_pad|>", ("<|image_pad|>", "<|vision_pad|>", "<|vision_end|>"), parent="qwen3",
        image_token="<|image_pad|>", image_break_token="<|vision_pad|>", image_end_token="<|vision_end|>")  # fmt: skip
def lighton_ocr(words: Words) -> Parts:
    config = transformers.LightOnOcrConfig(
        text_config={"model_type": "qwen3", **words.text(head_dim=8)}, vision_config=PIXTRAL,
        image_token_id=words.ids["<|image_pad|>"], spatial_merge_size=2,
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 56}, "patch_size": {"height": 14, "width": 14}}
    return Parts(config, "LightOnOcrProcessor", "PixtralImageProcessor", sizes,
                 {"patch_size": 14, "spatial_merge_size": 2})  # fmt: skip


@family("DeepSeek-VL hybrid", "<image_placeholder>", ("<image_placeholder>",), SPOKEN, "llama",
        image_token="<image_placeholder>")  # fmt: skip
def deepseek_vl_hybrid(words: Words) -> Parts:
    config = transformers.DeepseekVLHybridConfig(
        text_config={"model_type": "llama", **words.text()},
        vision_config={"model_type": "siglip_vision_model", **siglip()},
        high_res_vision_config={"model_type": "sam_vision_model", **SAM},
        image_token_id=words.ids["<image_placeholder>"],
    )  # fmt: skip
    sizes = {"size": SQUARE, "min_size": 7, "high_res_size": {"height": 64, "width": 64}, "high_res_min_size": 8}
    return Parts(config, "DeepseekVLHybridProcessor", "DeepseekVLHybridImageProcessor", sizes,
                 {"num_image_tokens": 4})  # fmt: skip


ERNIE = ("<|IMAGE_START|>", "<|IMAGE_END|>", "<|IMAGE_PLACEHOLDER|>", "<|VIDEO_START|>", "<|VIDEO_END|>",
         "<|VIDEO_PLACEHOLDER|>", "<|image@placeholder|>", "<|video@placeholder|>")  # fmt: skip


def _text_experts(name: str) -> str:
    """ERNIE's layers have experts of text, the base's, beside experts of pictures."""
    return name.replace("mlp.gate.", "mlp.text_moe.gate.").replace("mlp.experts.", "mlp.text_moe.experts.")


@family("ERNIE 4.5 VL", "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", ERNIE, TAGGED, "ernie4_5_moe",
        base={"moe_intermediate_size": 24},
        spelling=_text_experts,
        image_token=ERNIE[2], image_start_token=ERNIE[0], image_end_token=ERNIE[1], video_token=ERNIE[5],
        video_start_token=ERNIE[3], video_end_token=ERNIE[4])  # fmt: skip
def ernie4_5_vl(words: Words) -> Parts:
    config = transformers.Ernie4_5_VLMoeConfig(
        text_config=words.text(moe_intermediate_size=[24, 16], moe_k=2, moe_num_experts=4, moe_num_shared_experts=1,
                               rope_parameters={**MROPE, "mrope_section": [1, 1, 2]}),
        vision_config={**QWEN_VISION, "patch_size": 7},
        image_start_token_id=words.ids[ERNIE[0]], image_end_token_id=words.ids[ERNIE[1]],
        image_token_id=words.ids[ERNIE[2]], video_start_token_id=words.ids[ERNIE[3]],
        video_end_token_id=words.ids[ERNIE[4]], video_token_id=words.ids[ERNIE[5]],
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "size": {"shortest_edge": 14 * 14, "longest_edge": 56 * 56}}
    return Parts(config, "Ernie4_5_VLMoeProcessor", "Ernie4_5_VLMoeImageProcessor", sizes, {},
                 "Ernie4_5_VLMoeVideoProcessor", frames={"draw_on_frames": False})  # fmt: skip


@family("PaddleOCR-VL", "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", ERNIE, TAGGED, "ernie4_5",
        image_token=ERNIE[2])  # fmt: skip
def paddleocr_vl(words: Words) -> Parts:
    config = transformers.PaddleOCRVLConfig(
        text_config=words.text(head_dim=8, rope_parameters=MROPE), vision_config=siglip(image_size=56, patch_size=7),
        image_token_id=words.ids[ERNIE[2]], video_token_id=words.ids[ERNIE[5]],
        vision_start_token_id=words.ids[ERNIE[0]], vision_end_token_id=words.ids[ERNIE[1]],
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}}
    return Parts(config, "PaddleOCRVLProcessor", "PaddleOCRVLImageProcessor", sizes)


@family("EXAONE 4.5", "<vision><|image_pad|></vision>", ("<vision>", "</vision>", "<|image_pad|>", "<|video_pad|>"),
        TAGGED, "exaone4", image_token="<|image_pad|>", video_token="<|video_pad|>")  # fmt: skip
def exaone4_5(words: Words) -> Parts:
    config = transformers.Exaone4_5_Config(
        text_config={"model_type": "exaone4", **words.text(sliding_window=16,
                     layer_types=["sliding_attention", "full_attention"] * 2)},
        vision_config={**QWEN_VISION, "window_size": 28, "fullatt_block_indexes": [1], "num_key_value_heads": 2},
        image_token_id=words.ids["<|image_pad|>"], video_token_id=words.ids["<|video_pad|>"],
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "min_pixels": 14 * 14, "max_pixels": 56 * 56}
    return Parts(config, "Exaone4_5_Processor", "Qwen2VLImageProcessor", sizes, {}, "Qwen2VLVideoProcessor")


KIMI = ("<|media_begin|>", "<|media_content|>", "<|media_end|>", "<|media_pad|>", "<|video_pad|>")


@family("Kimi K2.5", "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>", KIMI, parent="deepseek_v3",
        needs=("torchvision",), image_token="<|media_pad|>", video_token="<|video_pad|>")  # fmt: skip
def kimi_k25(words: Words) -> Parts:
    text = words.text(
        moe_intermediate_size=24, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=8, num_key_value_heads=4,
    )  # fmt: skip
    vision = {"patch_size": 7, "pos_emb_height": 8, "pos_emb_width": 8, "pos_emb_time": 2, "num_attention_heads": 2,
              "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24,
              "merge_kernel_size": [2, 2]}  # fmt: skip
    config = transformers.Kimi_K25Config(
        text_config={"model_type": "deepseek_v3", **text}, vision_config=vision, projection_hidden_size=16,
        image_token_id=words.ids["<|media_pad|>"], video_token_id=words.ids["<|video_pad|>"],
        vision_start_token_id=words.ids["<|media_begin|>"], vision_end_token_id=words.ids["<|media_end|>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "size": {"max_height": 56, "max_width": 56}}
    return Parts(config, "Kimi_K25Processor", "Kimi_K25ImageProcessor", sizes, {}, "Kimi_K25VideoProcessor")


@family("Gemma 4 unified", "<image_soft_token>", (*GEMMA_MARKS, "<|video|>"), GEMMA, needs=("torchvision",),
        **GEMMA_NAMES)  # fmt: skip
def gemma4_unified(words: Words) -> Parts:
    text = words.text(
        head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    ids = {f"{name}_id": words.ids[token] for name, token in GEMMA_NAMES.items()}
    config = transformers.Gemma4UnifiedConfig(
        text_config=text, audio_config=None,
        vision_config={"patch_size": 4, "mm_embed_dim": 16, "output_proj_dims": 16, "mm_posemb_size": 64,
                       "initializer_range": 0.2}, video_token_id=words.ids["<|video|>"],
        eoa_token_index=ids.pop("eoa_token_id"), **ids,
    )  # fmt: skip
    return Parts(config, "Gemma4UnifiedProcessor", "Gemma4UnifiedImageProcessor",
                 {"patch_size": 4, "max_soft_tokens": 70}, {"image_seq_length": 70}, None,
                 {"feature_extractor_type": "Gemma4UnifiedAudioFeatureExtractor"})  # fmt: skip


@family("Granite 4 Vision", "<image>", ("<image>",), TAGGED, "granite")
def granite4_vision(words: Words) -> Parts:
    config = transformers.Granite4VisionConfig(
        text_config=words.text(),
        vision_config={"model_type": "siglip_vision_model", **siglip(hidden_size=64, patch_size=7)},
        qformer_config={"intermediate_size": 24},
        image_token_index=words.ids["<image>"], image_grid_pinpoints=PINPOINTS, downsample_rate="1/2",
        deepstack_layer_map=[[-1, 0]], spatial_target_layers=[1], spatial_vision_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=4,
    )  # fmt: skip
    config.image_token_id = words.ids["<image>"]
    sizes = {"size": SQUARE, "crop_size": SQUARE, "image_grid_pinpoints": PINPOINTS}
    options = {"patch_size": 7, "vision_feature_select_strategy": "full", "downsample_rate": "1/2"}
    return Parts(config, "Granite4VisionProcessor", "LlavaNextImageProcessor", sizes, options)
