"""The rows of special tokens: those that frame a prompt, end an answer, or stand for a picture."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vlsurgery.surgery.alignment.text_settings import text_config
from vlsurgery.surgery.alignment.vocabulary import SPECIAL, Vocabulary
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import read_json

GENERATION_CONFIG: Final = "generation_config.json"

# Name of a mismatch -> what configs call the token for which the vision tower's features are put in, and the like.
PICTURES: Final[Mapping[str, tuple[str, ...]]] = {
    "image_token": ("image_token_id", "image_token_index", "img_context_token_id"),
    "video_token": ("video_token_id", "video_token_index"),
    "picture_start": ("vision_start_token_id", "boi_token_id", "boi_token_index"),
    "picture_end": ("vision_end_token_id", "eoi_token_id", "eoi_token_index"),
}
END_OF_ANSWER: Final = "end_of_answer"
MEANINGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        SPECIAL, "Prompts are framed, and answers end, by other tokens; the result has those of its tokenizer."
    ),
    **dict.fromkeys(PICTURES, "Pictures stand at other tokens, which the other's rows were not trained for."),
    END_OF_ANSWER: "Generation stops at other tokens; the result stops where the model that it is like does.",
}

# A special token: its row, or its rows, and its text where a tokenizer tells.
Found = tuple[Any, str]


def special_tokens(name: str, checkpoint: Checkpoint, vocabulary: Vocabulary) -> Found | None:
    """The row and text of the special token that a mismatch is named after; None where nothing tells."""
    if name == END_OF_ANSWER:
        return _ends(checkpoint)
    if name in PICTURES:
        rows = (_stated(key, checkpoint) for key in PICTURES[name])
        row = next((row for row in rows if isinstance(row, int) and row >= 0), None)
        return None if row is None else (row, vocabulary.tokens.get(row, ""))
    return _framing(name, checkpoint, vocabulary)


def _framing(name: str, checkpoint: Checkpoint, vocabulary: Vocabulary) -> Found | None:
    """A token of SPECIAL: by the tokenizer, else by the config; both where they say otherwise."""
    stated = _stated(f"{name}_id", checkpoint)
    said = stated[0] if isinstance(stated, list) and stated else stated
    token = vocabulary.special.get(name)
    if token is not None:
        row = next((row for row, each in vocabulary.tokens.items() if each == token), None)
        if row is not None:
            # Where an answer ends has a name of its own.
            agree = said in (row, None) or name == "eos_token"
            return row if agree else f"{row}, in the config {said}", token
    return (said, vocabulary.tokens.get(said, "")) if isinstance(said, int) else None


def _ends(checkpoint: Checkpoint) -> Found | None:
    """The rows at which generation stops, by generation_config.json and by the config."""
    file = checkpoint.path / GENERATION_CONFIG
    stated = read_json(file).get("eos_token_id") if file.is_file() else None
    rows = sorted({*_numbers(stated), *_numbers(_stated("eos_token_id", checkpoint))})
    return (rows, "") if rows else None


def _numbers(stated: Any) -> set[int]:
    each: Iterable[Any] = stated if isinstance(stated, list) else [stated]
    return {row for row in each if isinstance(row, int)}


def _stated(key: str, checkpoint: Checkpoint) -> Any:
    """What the config says of its language model, or else as a whole."""
    text = text_config(checkpoint.config)
    stated = text.get(key)
    return checkpoint.config.get(key) if stated is None else stated
