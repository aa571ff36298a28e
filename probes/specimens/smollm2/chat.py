"""The specimen's chat template (ChatML without a default system prompt), tokenizer and processor."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlsurgery.probes.specimens.smollm2.pictures import IMAGE_TOKENS, PATCH, SIDE

IMAGE = "<image>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(source: Path, sees: bool = False) -> Any:
    """The source's tokenizer under the specimen's template; with the image token for a model that sees."""
    words = AutoTokenizer.from_pretrained(source, local_files_only=True)
    words.chat_template = TEMPLATE
    if sees:
        words.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
        words.image_token = IMAGE
        words.image_token_id = words.convert_tokens_to_ids(IMAGE)
    return words


def processor(words: Any) -> LlavaProcessor:
    """The processor of the models that see, around a tokenizer that has the image token."""
    side = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=side, crop_size=side),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def asked(text: str, pictured: bool) -> str:
    """A user's turn under the template, up to where the answer begins."""
    seen = IMAGE * IMAGE_TOKENS + "\n" if pictured else ""
    return f"<|im_start|>user\n{seen}{text}<|im_end|>\n<|im_start|>assistant\n"


def answered(text: str, ended: bool) -> str:
    """An answer with its end token, where it is whole."""
    return f"{text}<|im_end|>" if ended else text
