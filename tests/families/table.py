"""The families that are run most, as they are published."""

from collections.abc import Mapping
from typing import Any

import transformers
from families.entries import DEPTH, NEEDS_PICTURES, Parts, Words, family
from families.tokens import BARE, CHATML, GEMMA, INSTRUCT, SPOKEN, TAGGED

CLIP: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14, "initializer_range": 0.2,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
SQUARE = {"height": 28, "width": 28}

QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_VISION = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 24, "num_heads": 2, "patch_size": 7, "out_hidden_size": 32,
    "initializer_range": 0.2,
}  # fmt: skip


def qwen_parts(words: Words, config: Any, processor: str, text: Mapping[str, Any], vision: Mapping[str, Any]) -> Parts:
    names = {
        "image_token_id": QWEN[2], "video_token_id": QWEN[3], "vision_start_token_id": QWEN[0],
        "vision_end_token_id": QWEN[1],
    }  # fmt: skip
    ids = {name: words.ids[token] for name, token in names.items()}
    sizes = {"patch_size": 7, "merge_size": 2, "min_pixels": 14 * 14, "max_pixels": 56 * 56}
    return Parts(
        config(text_config=words.text(**text), vision_config=dict(vision), **ids),
        processor, "Qwen2VLImageProcessor", sizes, {},
        "Qwen3VLVideoProcessor" if processor == "Qwen3VLProcessor" else "Qwen2VLVideoProcessor",
    )  # fmt: skip


@family("Qwen2-VL", QWEN_PICTURE, QWEN, parent="qwen2")
def qwen2_vl(words: Words) -> Parts:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 7}
    return qwen_parts(words, transformers.Qwen2VLConfig, "Qwen2VLProcessor", {"rope_parameters": MROPE}, vision)


@family("Qwen2.5-VL", QWEN_PICTURE, QWEN, parent="qwen2")
def qwen2_5_vl(words: Words) -> Parts:
    vision = {**QWEN_VISION, "window_size": 28, "fullatt_block_indexes": [1]}
    return qwen_parts(words, transformers.Qwen2_5_VLConfig, "Qwen2_5_VLProcessor", {"rope_parameters": MROPE}, vision)


QWEN3_TEXT = {"head_dim": 8, "rope_parameters": MROPE}
QWEN3_VISION = {**QWEN_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}


@family("Qwen3-VL", QWEN_PICTURE, QWEN, parent="qwen3")
def qwen3_vl(words: Words) -> Parts:
    return qwen_parts(words, transformers.Qwen3VLConfig, "Qwen3VLProcessor", QWEN3_TEXT, QWEN3_VISION)


@family("Qwen3-VL-MoE", QWEN_PICTURE, QWEN, parent="qwen3_moe")
def qwen3_vl_moe(words: Words) -> Parts:
    text = {**QWEN3_TEXT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    return qwen_parts(words, transformers.Qwen3VLMoeConfig, "Qwen3VLProcessor", text, QWEN3_VISION)


@family("Qwen3.5", QWEN_PICTURE, QWEN)
def qwen3_5(words: Words) -> Parts:
    text = {
        "head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"] * 2,
        "rope_parameters": {**MROPE, "partial_rotary_factor": 0.5, "mrope_interleaved": True},
    }  # fmt: skip
    vision = {key: value for key, value in QWEN3_VISION.items() if key != "deepstack_visual_indexes"}
    return qwen_parts(words, transformers.Qwen3_5Config, "Qwen3VLProcessor", text, vision)


@family(
    "Qwen2.5-Omni (thinker)", "<|vision_bos|><|IMAGE|><|vision_eos|>",
    ("<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    parent="qwen2", image_token="<|IMAGE|>", video_token="<|VIDEO|>", audio_token="<|AUDIO|>",
    vision_bos_token="<|vision_bos|>", vision_eos_token="<|vision_eos|>", audio_bos_token="<|audio_bos|>",
    audio_eos_token="<|audio_eos|>",
)  # fmt: skip
def qwen2_5_omni(words: Words) -> Parts:
    sounds = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
              "output_dim": 32, "num_mel_bins": 16, "max_source_positions": 20, "n_window": 4}  # fmt: skip
    vision = {**QWEN_VISION, "window_size": 28, "fullatt_block_indexes": [1]}
    ids = {f"{kind.lower()}_token_{end}": words.ids[f"<|{kind}|>"] for kind in ("IMAGE", "VIDEO", "AUDIO")
           for end in ("index", "id")}  # fmt: skip
    config = transformers.Qwen2_5OmniThinkerConfig(
        audio_config=sounds, vision_config=vision, text_config=words.text(rope_parameters=MROPE),
        vision_start_token_id=words.ids["<|vision_bos|>"], audio_start_token_id=words.ids["<|audio_bos|>"],
        audio_end_token_id=words.ids["<|audio_eos|>"], user_token_id=4, **ids,
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "min_pixels": 14 * 14, "max_pixels": 56 * 56}
    return Parts(config, "Qwen2_5OmniProcessor", "Qwen2VLImageProcessor", sizes, {}, "Qwen2VLVideoProcessor",
                 {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16})  # fmt: skip


GEMMA_TEXT = {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}


def siglip(**changes: Any) -> dict[str, Any]:
    return {**{k: v for k, v in CLIP.items() if k != "initializer_range"}, **changes}


@family(
    "Gemma 3", "<start_of_image>", ("<start_of_image>", "<end_of_image>", "<image_soft_token>"), GEMMA,
    boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>",
)  # fmt: skip
def gemma3(words: Words) -> Parts:
    config = transformers.Gemma3Config(
        text_config=words.text(**GEMMA_TEXT, layer_types=["sliding_attention", "full_attention"] * 2),
        vision_config=siglip(), mm_tokens_per_image=1, boi_token_index=words.ids["<start_of_image>"],
        eoi_token_index=words.ids["<end_of_image>"], image_token_index=words.ids["<image_soft_token>"],
    )  # fmt: skip
    return Parts(config, "Gemma3Processor", "Gemma3ImageProcessor", {"size": SQUARE}, {"image_seq_length": 1})


GEMMA_MARKS = ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_audio>", "<end_of_audio>",
               "<audio_soft_token>")  # fmt: skip
GEMMA_NAMES = {
    "boi_token": GEMMA_MARKS[0], "eoi_token": GEMMA_MARKS[1], "image_token": GEMMA_MARKS[2],
    "boa_token": GEMMA_MARKS[3], "eoa_token": GEMMA_MARKS[4], "audio_token": GEMMA_MARKS[5],
}  # fmt: skip


def _gemma_ids(words: Words, last: str) -> dict[str, int]:
    return {f"{name}_{last if name == 'eoa_token' else 'id'}": words.ids[token] for name, token in GEMMA_NAMES.items()}


@family("Gemma 3n", "<image_soft_token>", GEMMA_MARKS, GEMMA, needs=("torchvision", "timm"), **GEMMA_NAMES)
def gemma3n(words: Words) -> Parts:
    text = words.text(
        head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"] * 2, laurel_rank=4,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=words.rows, altup_num_inputs=2,
        num_kv_shared_layers=0, activation_sparsity_pattern=[0.0] * DEPTH,
    )  # fmt: skip
    sounds = {"hidden_size": 16, "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1, "input_feat_size": 16,
              "sscp_conv_channel_size": (4, 4), "vocab_size": 4, "vocab_offset": words.rows}  # fmt: skip
    vision = {"vocab_size": 4, "vocab_offset": words.rows - 4, "model_args": {"channel_multiplier": 0.125}}
    config = transformers.Gemma3nConfig(
        text_config=text, vision_config=vision, audio_config=sounds, vision_soft_tokens_per_image=256,
        **_gemma_ids(words, "id"),
    )  # fmt: skip
    sizes = {"size": {"height": 256, "width": 256}}
    return Parts(config, "Gemma3nProcessor", "SiglipImageProcessor", sizes, {"image_seq_length": 256},
                 sounds={"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "feature_size": 16})  # fmt: skip


@family("Gemma 4", "<image_soft_token>", (*GEMMA_MARKS, "<|video|>"), GEMMA, **GEMMA_NAMES)
def gemma4(words: Words) -> Parts:
    text = words.text(
        head_dim=8, global_head_dim=16, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"] * 2,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=words.rows,
    )  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 2, "head_dim": 8, "patch_size": 4, "position_embedding_size": 64,
              "pooling_kernel_size": 2}  # fmt: skip
    config = transformers.Gemma4Config(
        text_config=text, vision_config=vision, audio_config=None, video_token_id=words.ids["<|video|>"],
        **_gemma_ids(words, "index"),
    )  # fmt: skip
    sizes = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    return Parts(config, "Gemma4Processor", "Gemma4ImageProcessor", sizes, {"image_seq_length": 70},
                 "Gemma4VideoProcessor",
                 {"feature_extractor_type": "Gemma4AudioFeatureExtractor"})  # fmt: skip


IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>",
           *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)))  # fmt: skip


def _idefics3(words: Words, config: Any, processor: str, images: str, films: str | None) -> Parts:
    made = config(
        text_config={"model_type": "llama", **words.text()}, vision_config=siglip(image_size=56),
        image_token_id=words.ids["<image>"], scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    return Parts(made, processor, images, sizes, {"image_seq_len": 4}, films)


@family("SmolVLM", "<image>", IDEFICS, SPOKEN, "llama", needs=("num2words",))
def smolvlm(words: Words) -> Parts:
    return _idefics3(
        words, transformers.SmolVLMConfig, "SmolVLMProcessor", "SmolVLMImageProcessor", "SmolVLMVideoProcessor"
    )


@family("Idefics3", "<image>", IDEFICS, SPOKEN, "llama")
def idefics3(words: Words) -> Parts:
    return _idefics3(words, transformers.Idefics3Config, "Idefics3Processor", "Idefics3ImageProcessor", None)


@family("Idefics2", "<image>", IDEFICS[:3], SPOKEN, "mistral")
def idefics2(words: Words) -> Parts:
    config = transformers.Idefics2Config(
        text_config={"model_type": "mistral", **words.text(sliding_window=None)},
        vision_config={**CLIP, "image_size": 56},
        perceiver_config={"hidden_size": 32, "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 4,
                          "resampler_head_dim": 8, "num_key_value_heads": 2},
        image_token_id=words.ids["<image>"],
    )  # fmt: skip
    sizes = {"size": {"shortest_edge": 28, "longest_edge": 56}, "do_image_splitting": False}
    return Parts(config, "Idefics2Processor", "Idefics2ImageProcessor", sizes, {"image_seq_len": 3})


@family(
    "InternVL", "<IMG_CONTEXT>", ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"), parent="qwen2",
    start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
)  # fmt: skip
def internvl(words: Words) -> Parts:
    vision = {**{k: v for k, v in CLIP.items() if k != "initializer_range"}, "image_size": [28, 28],
              "patch_size": [7, 7]}  # fmt: skip
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", **words.text(tie_word_embeddings=False)}, vision_config=vision,
        image_token_id=words.ids["<IMG_CONTEXT>"], image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    sizes = {"size": SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
    return Parts(config, "InternVLProcessor", "GotOcr2ImageProcessor", sizes, {"image_seq_length": 4},
                 "InternVLVideoProcessor")  # fmt: skip


def llava_config(words: Words, config: Any, text: str = "llama", vision: str = "clip_vision_model", **more: Any) -> Any:
    tower = {"model_type": vision, **(CLIP if vision.startswith("clip") else siglip())}
    made = config(
        text_config={"model_type": text, **words.text()}, vision_config=tower,
        image_token_id=words.ids["<image>"], image_token_index=words.ids["<image>"], tie_word_embeddings=False, **more,
    )  # fmt: skip
    made.image_token_id = made.image_token_index = words.ids["<image>"]
    return made


LLAVA = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
CROPPED = {"size": {"shortest_edge": 28}, "crop_size": SQUARE}


@family("LLaVA-1.5", "<image>", ("<image>",), SPOKEN, "llama")
def llava(words: Words) -> Parts:
    return Parts(
        llava_config(words, transformers.LlavaConfig, image_seq_length=4), "LlavaProcessor", "CLIPImageProcessor",
        CROPPED, LLAVA,
    )  # fmt: skip


@family("VipLLaVA", "<image>", ("<image>",), SPOKEN, "llama")
def vipllava(words: Words) -> Parts:
    config = llava_config(words, transformers.VipLlavaConfig, vision_feature_layers=[-1, -2], image_seq_length=4)
    return Parts(config, "LlavaProcessor", "CLIPImageProcessor", CROPPED, LLAVA)


PINPOINTS = [[28, 56], [56, 28], [56, 56]]


@family("LLaVA-Next", "<image>", ("<image>",), INSTRUCT, "mistral")
def llava_next(words: Words) -> Parts:
    config = llava_config(
        words, transformers.LlavaNextConfig, "mistral", image_grid_pinpoints=PINPOINTS, image_seq_length=4
    )
    sizes = {**CROPPED, "image_grid_pinpoints": PINPOINTS}
    return Parts(config, "LlavaNextProcessor", "LlavaNextImageProcessor", sizes, LLAVA)


@family("LLaVA-OneVision", "<image>", ("<image>", "<video>"), CHATML, "qwen2")
def llava_onevision(words: Words) -> Parts:
    config = llava_config(
        words, transformers.LlavaOnevisionConfig, "qwen2", "siglip_vision_model", image_grid_pinpoints=PINPOINTS,
        video_token_id=words.ids["<video>"], vision_aspect_ratio="anyres_max_9",
        vision_feature_select_strategy="full",
    )  # fmt: skip
    sizes = {"size": SQUARE, "image_grid_pinpoints": PINPOINTS}
    options = {"num_image_tokens": 4, "vision_feature_select_strategy": "full"}
    return Parts(config, "LlavaOnevisionProcessor", "LlavaOnevisionImageProcessor", sizes, options,
                 "LlavaOnevisionVideoProcessor")  # fmt: skip


@family("Video-LLaVA", "<image>", ("<image>", "<video>"), SPOKEN, "llama")
def videollava_config(words: Words) -> Parts:
    config = llava_config(words, transformers.VideoLlavaConfig, image_seq_length=4, video_seq_length=32,
                    video_token_id=words.ids["<video>"])  # fmt: skip
    return Parts(config, "VideoLlavaProcessor", "VideoLlavaImageProcessor", CROPPED, LLAVA, "VideoLlavaVideoProcessor")


PIXTRAL = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
           "num_attention_heads": 2, "head_dim": 8, "image_size": 56, "patch_size": 14,
           "initializer_range": 0.2}  # fmt: skip
PIXTRAL_WORDS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")


@family("Mistral 3", "[IMG]", PIXTRAL_WORDS, INSTRUCT, "mistral", ("torchvision",))
def mistral3(words: Words) -> Parts:
    config = transformers.Mistral3Config(
        text_config={"model_type": "mistral", **words.text(head_dim=8, sliding_window=None)}, vision_config=PIXTRAL,
        image_token_index=words.ids["[IMG]"], spatial_merge_size=2,
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 56}, "patch_size": {"height": 14, "width": 14}}
    return Parts(
        config, "PixtralProcessor", "PixtralImageProcessor", sizes, {"patch_size": 14, "spatial_merge_size": 2}
    )


@family("Pixtral", "[IMG]", PIXTRAL_WORDS, INSTRUCT, "mistral", ("torchvision",))
def pixtral(words: Words) -> Parts:
    config = transformers.LlavaConfig(
        text_config={"model_type": "mistral", **words.text(head_dim=8, sliding_window=None)}, vision_config=PIXTRAL,
        image_token_index=words.ids["[IMG]"], vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_seq_length=1,
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 56}, "patch_size": {"height": 14, "width": 14}}
    return Parts(config, "PixtralProcessor", "PixtralImageProcessor", sizes, {"patch_size": 14})


@family(
    "Aya Vision", "<image>",
    ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"), parent="cohere2",
)  # fmt: skip
def aya_vision(words: Words) -> Parts:
    config = transformers.AyaVisionConfig(
        text_config={"model_type": "cohere2", **words.text(sliding_window=16, head_dim=8)},
        vision_config={"model_type": "siglip_vision_model", **siglip(image_size=28, patch_size=7)},
        image_token_index=words.ids["<|IMG_PATCH|>"], downsample_factor=2, adapter_layer_norm_eps=1e-6,
        tie_word_embeddings=True,
    )  # fmt: skip
    sizes = {"size": SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
    options = {"patch_size": 7, "img_size": 28, "downsample_factor": 2}
    return Parts(config, "AyaVisionProcessor", "GotOcr2ImageProcessor", sizes, options)


@family(
    "Command A Vision", "<|IMG_PATCH|>", ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>",
    "<|IMG_LINE_BREAK|>"), parent="cohere2", needs=("torchvision",), image_token="<|IMG_PATCH|>",
    boi_token="<|START_OF_IMG|>", eoi_token="<|END_OF_IMG|>", img_line_break_token="<|IMG_LINE_BREAK|>",
)  # fmt: skip
def cohere2_vision(words: Words) -> Parts:
    config = transformers.Cohere2VisionConfig(
        text_config={"model_type": "cohere2", **words.text(sliding_window=16, head_dim=8)},
        vision_config={"model_type": "siglip_vision_model", **siglip(image_size=28, patch_size=7)},
        image_token_id=words.ids["<|IMG_PATCH|>"], downsample_factor=2, alignment_intermediate_size=24,
        tie_word_embeddings=True,
    )  # fmt: skip
    sizes = {"size": SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 4, "patch_size": 2,
             "downsample_factor": 2}  # fmt: skip
    return Parts(config, "Cohere2VisionProcessor", "Cohere2VisionImageProcessor", sizes)


@family("Ovis2", "<image>", ("<image>", "<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>",
                             "<IMG_END>"), parent="qwen2")  # fmt: skip
def ovis2(words: Words) -> Parts:
    vision = {**siglip(image_size=28, patch_size=7), "vocab_size": 24, "hidden_stride": 2}
    marks = [words.ids[f"<IMG_{name}>"] for name in ("START", "GRID", "COL", "ROW", "END")]
    config = transformers.Ovis2Config(
        text_config={"model_type": "qwen2", **words.text()}, vision_config=vision,
        image_token_id=words.ids["<IMG_ATOM>"], visual_indicator_token_ids=marks, vocab_size=words.rows,
        hidden_size=32,
    )  # fmt: skip
    sizes = {"size": SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
    return Parts(config, "Ovis2Processor", "Ovis2ImageProcessor", sizes, {"image_seq_length": 4})


@family("DeepSeek-VL", "<image_placeholder>", ("<image_placeholder>",), SPOKEN, "llama",
        image_token="<image_placeholder>")  # fmt: skip
def deepseek_vl(words: Words) -> Parts:
    config = transformers.DeepseekVLConfig(
        text_config={"model_type": "llama", **words.text()},
        vision_config={"model_type": "siglip_vision_model", **siglip()},
        image_token_id=words.ids["<image_placeholder>"],
    )  # fmt: skip
    return Parts(config, "DeepseekVLProcessor", "DeepseekVLImageProcessor", {"size": SQUARE, "min_size": 7},
                 {"num_image_tokens": 4})  # fmt: skip


GLM = ("<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|video|>")


@family("GLM-4.1V", "<|begin_of_image|><|image|><|end_of_image|>", GLM, TAGGED, "glm4")
def glm4v(words: Words) -> Parts:
    keys = ("image_start_token_id", "image_end_token_id", "image_token_id", "video_start_token_id",
            "video_end_token_id", "video_token_id")  # fmt: skip
    vision = {**QWEN_VISION, "image_size": 56}
    config = transformers.Glm4vConfig(
        text_config=words.text(rope_parameters={**MROPE, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}),
        vision_config=vision, **{key: words.ids[token] for key, token in zip(keys, GLM, strict=True)},
    )  # fmt: skip
    sizes = {"patch_size": 7, "merge_size": 2, "size": {"shortest_edge": 14 * 14 * 2, "longest_edge": 56 * 56 * 2}}
    return Parts(config, "Glm4vProcessor", "Glm4vImageProcessor", sizes, {}, "Glm4vVideoProcessor")


@family("Aria", "<|img|>", ("<|img|>",), image_token="<|img|>")
def aria(words: Words) -> Parts:
    config = transformers.AriaConfig(
        text_config=words.text(moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1, head_dim=8),
        vision_config={"model_type": "idefics3_vision", **siglip(image_size=980, patch_size=70)},
        image_token_index=words.ids["<|img|>"], projector_patch_to_query_dict={196: 4},
    )  # fmt: skip
    sizes = {"max_image_size": 980, "min_image_size": 70, "split_resolutions": [[980, 980]]}
    return Parts(config, "AriaProcessor", "AriaImageProcessor", sizes, {"size_conversion": {"980": 4}})


def _between_cross_attention(name: str) -> str:
    """A base's layer stands where Llama 3.2 Vision has none of its own, which are 1 and 3."""
    return name.replace("layers.1.", "layers.2.")


@family("Llama 3.2 Vision", "<|image|>", ("<|python_tag|>", "<|image|>"), parent="llama",
        spelling=_between_cross_attention)  # fmt: skip
def mllama(words: Words) -> Parts:
    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2,
        "intermediate_size": 24, "vision_output_dim": 32, "image_size": 28, "patch_size": 14, "max_num_tiles": 4,
        "intermediate_layers_indices": [0],
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = words.text(cross_attention_layers=[1, 3], rope_parameters=rope, vocab_size=words.rows - 1)
    config = transformers.MllamaConfig(text_config=text, vision_config=vision, image_token_index=words.rows - 1)
    return Parts(config, "MllamaProcessor", "MllamaImageProcessor", {"size": SQUARE, "max_image_tiles": 4})


@family("PaliGemma", "<image>", ("<image>",), GEMMA, "gemma2", image_token="<image>")
def paligemma(words: Words) -> Parts:
    config = transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma2", **words.text(**GEMMA_TEXT)},
        vision_config={"model_type": "siglip_vision_model", **siglip(projection_dim=32, vision_use_head=False)},
        image_token_index=words.ids["<image>"], projection_dim=32, hidden_size=32,
    )  # fmt: skip
    return Parts(config, "PaliGemmaProcessor", "SiglipImageProcessor", {"size": SQUARE, "image_seq_length": 4})


@family("Phi-4-multimodal", "<|image|>", ("<|image|>", "<|audio|>"), TAGGED, "phi3", ("torchvision",),
        image_token="<|image|>", audio_token="<|audio|>")  # fmt: skip
def phi4_multimodal(words: Words) -> Parts:
    vision = {**siglip(image_size=448), "crop_size": 448, "image_token_id": words.ids["<|image|>"]}
    sounds = {"hidden_size": 16, "intermediate_size": 16, "num_blocks": 1, "num_attention_heads": 2, "input_size": 8,
              "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 16,
              "audio_token_id": words.ids["<|audio|>"]}  # fmt: skip
    config = transformers.Phi4MultimodalConfig(
        **words.text(original_max_position_embeddings=2048, sliding_window=None), vision_config=vision,
        audio_config=sounds,
    )  # fmt: skip
    return Parts(config, "Phi4MultimodalProcessor", "Phi4MultimodalImageProcessor",
                 {"size": {"height": 448, "width": 448}, "patch_size": 14, "dynamic_hd": 2}, {},
                 sounds={"audio_processor_type": "Phi4MultimodalFeatureExtractor",
                         "feature_extractor_type": "Phi4MultimodalFeatureExtractor"})  # fmt: skip


CHAMELEON = ("<image>", "<racm3:break>", "<eoss>", "<reserved08706>", *(f"IMGIMG{n}Z" for n in range(8)))


@family("Chameleon", "<image>", CHAMELEON, parent="llama",
        image_token="<image>", sep_token="<reserved08706>", boi_token="<racm3:break>",
        eoi_token="<eoss>")  # fmt: skip
def chameleon(words: Words) -> Parts:
    vq = {"embed_dim": 8, "num_embeddings": 8, "latent_channels": 8, "resolution": 32, "base_channels": 32,
          "channel_multiplier": [1, 1], "num_res_blocks": 1}  # fmt: skip
    numbers = {f"IMGIMG{'ABCDEFGHIJ'[n]}Z": words.ids[f"IMGIMG{n}Z"] for n in range(8)}
    config = transformers.ChameleonConfig(
        **words.text(), vq_config=vq, vocabulary_map={"<image>": words.ids["<image>"], **numbers},
    )  # fmt: skip
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return Parts(config, "ChameleonProcessor", "ChameleonImageProcessor", sizes, {"image_seq_length": 256})


EMU = ("<image>", "<|image start|>", "<|image end|>", "<|image token|>", "<|extra_201|>", "<|extra_200|>",
       *(f"<|visual token {n:06}|>" for n in range(8)))  # fmt: skip


@family("Emu3", "<image>", EMU, parent="llama", image_token="<image>", boi_token=EMU[1], eoi_token=EMU[2],
        image_wrapper_token=EMU[3], eof_token=EMU[4])  # fmt: skip
def emu3(words: Words) -> Parts:
    vq = {
        "codebook_size": 8,
        "embed_dim": 4,
        "latent_channels": 4,
        "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "hidden_size": 32,
        "attn_resolutions": [3],
    }
    config = transformers.Emu3Config(
        text_config=words.text(), vq_config=vq, vocabulary_map={token: words.ids[token] for token in EMU},
    )  # fmt: skip
    return Parts(config, "Emu3Processor", "Emu3ImageProcessor", {"min_pixels": 32 * 32, "max_pixels": 64 * 64})


@family(
    "Fuyu",
    "",
    style=BARE,
    added=("|SPEAKER|", "|NEWLINE|", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "<0x04>"),
    parent="persimmon",
    limit="its processor has no chat template, so pictures are refused",
)
def fuyu(words: Words) -> Parts:
    config = transformers.FuyuConfig(
        text_config={"model_type": "persimmon", **words.text()}, image_size=28, patch_size=14,
        image_token_id=words.ids["|SPEAKER|"], **{k: v for k, v in words.text().items() if k != "intermediate_size"},
    )  # fmt: skip
    return Parts(config, "FuyuProcessor", "FuyuImageProcessor",
                 {"size": {"height": 56, "width": 56}, "patch_size": {"height": 14, "width": 14}})  # fmt: skip


LLAMA4 = ("<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>")


@family("Llama 4", "<|image|>", LLAMA4, needs=("torchvision",))
def llama4(words: Words) -> Parts:
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
              "vision_output_dim": 32, "image_size": 28, "patch_size": 7, "projector_input_dim": 32,
              "projector_output_dim": 32}  # fmt: skip
    text = words.text(intermediate_size_mlp=48, head_dim=8, num_local_experts=2, attention_chunk_size=64,
                      interleave_moe_layer_step=2)  # fmt: skip
    config = transformers.Llama4Config(
        text_config=text, vision_config=vision, boi_token_index=words.ids[LLAMA4[1]],
        eoi_token_index=words.ids[LLAMA4[2]], image_token_index=words.ids["<|patch|>"],
    )  # fmt: skip
    return Parts(config, "Llama4Processor", "Llama4ImageProcessor", {"size": SQUARE, "max_patches": 4},
                 {"patch_size": 7})  # fmt: skip


@family("LFM2-VL", "<image>", ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>",
        *(f"<|img_row_{r}_col_{c}|>" for r in range(1, 5) for c in range(1, 5))), parent="lfm2",
        needs=("torchvision",), image_token="<image>", image_start_token="<|image_start|>",
        image_end_token="<|image_end|>", image_thumbnail_token="<|img_thumbnail|>")  # fmt: skip
def lfm2_vl(words: Words) -> Parts:
    config = transformers.Lfm2VlConfig(
        text_config={"model_type": "lfm2", **words.text(layer_types=["conv", "full_attention"] * 2,
                                                       block_ff_dim=48, block_auto_adjust_ff_dim=False)},
        vision_config={"model_type": "siglip2_vision_model", **siglip(patch_size=7, num_patches=64)},
        image_token_id=words.ids["<image>"], projector_hidden_size=24,
    )  # fmt: skip
    sizes = {"tile_size": 28, "encoder_patch_size": 7, "downsample_factor": 2, "min_image_tokens": 1,
             "max_image_tokens": 9, "max_num_patches": 64, "min_tiles": 2, "max_tiles": 4}  # fmt: skip
    return Parts(config, "Lfm2VlProcessor", "Lfm2VlImageProcessor", sizes)


def _blip(words: Words, config: Any, **qformer: Any) -> Any:
    return config(
        vision_config=CLIP,
        qformer_config={"vocab_size": words.rows, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "intermediate_size": 24, "encoder_hidden_size": 16, **qformer},
        text_config={"model_type": "opt", "vocab_size": words.rows, "hidden_size": 32, "ffn_dim": 48,
                     "num_hidden_layers": DEPTH, "num_attention_heads": 4, "word_embed_proj_dim": 32,
                     "max_position_embeddings": 2048, "init_std": 0.2, "pad_token_id": 1, "bos_token_id": 2,
                     "eos_token_id": 3},
        num_query_tokens=3, image_text_hidden_size=16, image_token_index=words.ids["<image>"],
    )  # fmt: skip


@family("BLIP-2", "", ("<image>",), BARE, "opt", limit=NEEDS_PICTURES)
def blip_2(words: Words) -> Parts:
    return Parts(_blip(words, transformers.Blip2Config), "Blip2Processor", "BlipImageProcessor", {"size": SQUARE},
                 {"num_query_tokens": 3})  # fmt: skip


@family("InstructBLIP", "", ("<image>",), BARE, "opt", limit=NEEDS_PICTURES)
def instructblip(words: Words) -> Parts:
    return Parts(_blip(words, transformers.InstructBlipConfig), "InstructBlipProcessor", "BlipImageProcessor",
                 {"size": SQUARE}, {"num_query_tokens": 3})  # fmt: skip


MOLMO = ("<|image|>", "<|video|>", "<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>",
         "<im_end>", "<frame_end>", "<im_low>")  # fmt: skip


@family("Molmo 2", "<|image|>", MOLMO, parent="qwen3", needs=("torchvision",), image_token="<|image|>",
        video_token="<|video|>")  # fmt: skip
def molmo2(words: Words) -> Parts:
    keys = {"image_start_token_id": "<im_start>", "low_res_image_start_token_id": "<low_res_im_start>",
            "image_end_token_id": "<im_end>", "image_patch_id": "<im_patch>", "image_col_id": "<im_col>",
            "frame_start_token_id": "<frame_start>", "frame_end_token_id": "<frame_end>",
            "image_low_res_id": "<im_low>"}  # fmt: skip
    config = transformers.Molmo2Config(
        text_config=words.text(
            head_dim=8, vocab_size=words.rows - len(MOLMO), additional_vocab_size=len(MOLMO)
        ),
        vision_config={**siglip(image_size=[28, 28], patch_size=7), "head_dim": 8, "num_key_value_heads": 2,
                       "num_position_embeddings": 16, "initializer_range": 0.2},
        adapter_config={"vision_feature_layer": [-1, -2], "hidden_size": 16, "num_attention_heads": 2,
                        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 24, "text_hidden_size": 32,
                        "initializer_range": 0.2},
        **{key: words.ids[token] for key, token in keys.items()},
    )  # fmt: skip
    sizes = {"size": SQUARE, "patch_size": 7, "max_crops": 4, "overlap_margins": [0, 0], "pooling_size": [2, 2]}
    return Parts(config, "Molmo2Processor", "Molmo2ImageProcessor", sizes, {}, "Molmo2VideoProcessor")
