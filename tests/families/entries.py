"""What the table holds of each family: a config of a few thousand parameters, and its real processor's settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from families.tokens import CHATML, Style

DEPTH = 4
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.2,
    "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Words:
    """What a family's config needs of its tokenizer. rows: of the vocabulary."""

    ids: Mapping[str, int]
    rows: int

    def text(self, **changes: Any) -> dict[str, Any]:
        return {**TEXT, "vocab_size": self.rows, **changes}


@dataclass(frozen=True)
class Parts:
    """A config, the name of its processor's class, the processor of pictures by class name and settings, and the
    processor's own settings. films: the class of the processor of films, where there is one. frames: its settings.
    sounds: those of the processor of sounds."""

    config: Any
    processor: str | None = None
    images: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    films: str | None = None
    sounds: Mapping[str, Any] | None = None
    frames: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One family. name: as the README has it. picture: what its template writes for a picture. added: its special
    tokens. names: the tokenizer's attributes for them. parent: the model type of its base, where that is another than
    its text config's. needs: the packages beside transformers that its processor takes. limit: what it lacks. base:
    settings of its base that differ from its own. spelling: of a base's tensor in the text stack, its name in ours.
    first_state: where in transformers' hidden states the first block's are."""

    name: str
    parts: Callable[[Words], Parts]
    style: Style
    picture: str
    added: tuple[str, ...]
    names: Mapping[str, str]
    parent: str | None
    needs: tuple[str, ...]
    limit: str
    base: Mapping[str, Any] = field(default_factory=dict)
    spelling: Callable[[str], str] = str
    sees: bool = True
    first_state: int = 1


FAMILIES: dict[str, Family] = {}
NEEDS_PICTURES = "it takes no text without a picture, which probe asks"


def family(
    name: str,
    picture: str = "",
    added: tuple[str, ...] = (),
    style: Style = CHATML,
    parent: str | None = None,
    needs: tuple[str, ...] = (),
    limit: str = "",
    base: Mapping[str, Any] = MappingProxyType({}),
    spelling: Callable[[str], str] = str,
    sees: bool = True,
    first_state: int = 1,
    **names: str,
) -> Callable[[Callable[[Words], Parts]], Callable[[Words], Parts]]:
    """Enter the function that makes a family's parts into the table."""

    def enter(parts: Callable[[Words], Parts]) -> Callable[[Words], Parts]:
        FAMILIES[name] = Family(
            name, parts, style, picture, added, names, parent, needs, limit, base, spelling, sees, first_state
        )
        return parts

    return enter
