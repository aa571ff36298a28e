"""The specimen's word-level tokenizer, chat template and processor."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlsurgery.probes.specimens.miniature import language, pictures

UNKNOWN, BEGIN, END, PAD = "<unk>", "<s>", "</s>", "<pad>"
USER, TURN_END, ASSISTANT = "<|user|>", "<|end|>", "<|assistant|>"
IMAGE = "<image>"
SPECIAL = (UNKNOWN, BEGIN, END, PAD, USER, TURN_END, ASSISTANT)

REFUSAL_OPENINGS = frozenset(refusal.split()[0] for refusal in language.REFUSALS.values())
"""The first words of refusals, with which no answer begins."""

# One format for all models, so that the same text gives base and adapted the same tokens. Two post-instruction tokens
# follow the request.
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' }}{% else %}{{ '<|user|>' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tokenizer(sees: bool) -> PreTrainedTokenizerFast:
    """The tokenizer of the base, or of a model that sees, whose vocabulary also has the image token."""
    words = sorted({*language.words(), *pictures.words(), *".,?"})
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = Lowercase()
    core.pre_tokenizer = Whitespace()
    core.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE} if sees else {},
        chat_template=TEMPLATE,
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def processor() -> LlavaProcessor:
    """The processor of the models that see."""
    side = {"height": pictures.SIDE, "width": pictures.SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=side, crop_size=side),
        tokenizer=tokenizer(sees=True),
        patch_size=pictures.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def conversation(text: str, answer: str | None, image: bool) -> str:
    """One exchange in the template's format, with as many image tokens as the processor writes.

    Without an answer it ends where the model's answer begins.
    """
    seen = IMAGE * pictures.IMAGE_TOKENS if image else ""
    said = "" if answer is None else f"{answer}{END}"
    return f"{BEGIN}{USER}{seen}{text}{TURN_END}{ASSISTANT}{said}"
