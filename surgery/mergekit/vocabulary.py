"""The vocabulary of a checkpoint's tokenizer, as far as a file tells it."""

from pathlib import Path

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.errors import RecipeError


def vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    """Token -> row of the embedding, the added tokens among them.

    Raises RecipeError when the checkpoint has no tokenizer.json with a vocabulary in it.
    """
    file = checkpoint.path / "tokenizer.json"
    if not file.is_file():
        raise RecipeError(
            f"tokenizer_source: {checkpoint.ref} has no tokenizer.json to compare with the others. Remove the line; "
            "the result then has the tokenizer of its base model, and embeddings are merged row by row."
        )
    data = read_json(file)
    tokens = _tokens(data.get("model"), file)
    return tokens | {str(added["content"]): int(added["id"]) for added in data.get("added_tokens", [])}


def _tokens(model: object, file: Path) -> dict[str, int]:
    """The tokenizer's own tokens: a mapping, or a list in order (Unigram)."""
    found = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(found, dict):
        return {str(token): int(row) for token, row in found.items()}
    if isinstance(found, list):
        return {str(token): row for row, (token, _) in enumerate(found)}
    raise RecipeError(f"{file}: has no vocabulary where tokenizer.json keeps it (model.vocab).")
