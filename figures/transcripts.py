"""Every completion for the page to search: a record a prompt with what every role said, packed as small as it gets."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlsurgery.figures import theme
from vlsurgery.figures.packing import packed
from vlsurgery.figures.said import FLIPS, Sayings, side_by_side
from vlsurgery.figures.wording import MODALITY_ORDER, SET_ORDER, modality_name, rank, role_name
from vlsurgery.probes.results import CompletionsResult

MAX_PACKED_BYTES = 620_000
"""Of all completions on the page, so that with plotly.js (4.8 MB) and the figures it stays below 6 MB."""


@dataclass(frozen=True)
class Transcript:
    """A prompt and what every role said. flips: of `FLIPS`, those that it shows."""

    id: str
    set: str
    modality: str
    prompt: str
    sayings: tuple[Sayings, ...]
    flips: tuple[int, ...]


@dataclass(frozen=True)
class Transcripts:
    """Everything that was said, flipped prompts first."""

    roles: tuple[str, ...]
    items: tuple[Transcript, ...]


@dataclass(frozen=True)
class Packed:
    """Transcripts as text for the page. prompts, completions: how many it holds, of how many there are."""

    text: str
    prompts: int
    all_prompts: int
    completions: int
    all_completions: int


def compute(completions: CompletionsResult) -> Transcripts:
    """Bring together what was said to each prompt, whoever was asked it."""
    roles, found = side_by_side(completions)
    items = [
        Transcript(id_, set_, modality, prompt, sayings, flips)
        for (set_, modality, id_), (prompt, sayings, flips) in found.items()
    ]
    items.sort(key=lambda item: (not item.flips, rank(SET_ORDER, item.set), rank(MODALITY_ORDER, item.modality)))
    return Transcripts(roles, tuple(items))


def pack(transcripts: Transcripts, most: int = MAX_PACKED_BYTES) -> Packed:
    """As many transcripts as fit, in their order: JSON with every text once, compressed, in base 64.

    most: bytes of the result.
    """
    items = transcripts.items
    count, text = len(items), _packed(transcripts.roles, items)
    while len(text) > most and count:
        count = min(count - 1, int(0.97 * count * most / len(text)))
        text = _packed(transcripts.roles, items[:count])
    held, whole = (sum(len(item.sayings) for item in some) for some in (items[:count], items))
    return Packed(text, count, len(items), held, whole)


def _packed(roles: Sequence[str], items: Sequence[Transcript]) -> str:
    texts: dict[str, int] = {}

    def at(text: str) -> int:
        return texts.setdefault(text, len(texts))

    told = [
        {
            "id": item.id, "set": item.set, "modality": item.modality, "prompt": at(item.prompt), "flips": item.flips,
            "said": [
                [one.role, one.label, at(one.kind), at(one.reason), at(one.aside), at(one.text), one.left_out]
                for one in item.sayings
            ],
        }
        for item in items
    ]  # fmt: skip
    page = {
        "roles": {role: {"name": role_name(role), "colour": theme.role_colour(role)} for role in roles},
        "modalities": {item.modality: modality_name(item.modality) for item in items},
        "flips": [flip.name for flip in FLIPS],
        "items": told,
        "texts": list(texts),
    }
    return packed(page)
