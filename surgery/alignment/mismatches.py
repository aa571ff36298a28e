"""Settings and tokens in which checkpoints differ although their shapes agree: weights that fit, and don't."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from vlsurgery.surgery.alignment import chat_templates
from vlsurgery.surgery.alignment.alignment import VOCABULARY, Alignment
from vlsurgery.surgery.alignment.special_tokens import MEANINGS, Found, special_tokens
from vlsurgery.surgery.alignment.text_settings import SETTINGS, text_settings
from vlsurgery.surgery.alignment.tokenization import TOKENIZER, cutting
from vlsurgery.surgery.alignment.vision_settings import VISION_SETTINGS, vision_settings
from vlsurgery.surgery.alignment.vocabulary import Vocabulary, vocabulary_of
from vlsurgery.surgery.architecture.layouts import EMBED
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import Mismatch
from vlsurgery.surgery.runtime.visible import visible

# Names of the mismatches that are no settings of a config.
TOKENS: Final = "tokens"
SPARE_TOKENS: Final = "spare_tokens"
TOKENIZATION: Final = "tokenization"
NAMES: Final = (TOKENS, SPARE_TOKENS, TOKENIZATION, chat_templates.NAME, *MEANINGS, *SETTINGS, *VISION_SETTINGS)

# How many tokens a value shows, and how many characters of each, and of a setting.
SHOWN_TOKENS: Final = 2
SHOWN_CHARACTERS: Final = 24
SHOWN_SETTING: Final = 120

# Names of rows that a vocabulary keeps free for later use, which adaptation takes for its own tokens.
_SPARE: Final = re.compile(r"reserved|unused|place.?holder|extra|dummy|spare|control|\bpad|\[gmask", re.IGNORECASE)


class CheckpointFit(NamedTuple):
    """How checkpoints fit each other. notes: on the roles whose tokens could not be compared."""

    mismatches: list[Mismatch]
    notes: list[str]


def fit_of(alignment: Alignment) -> CheckpointFit:
    """What differs between the checkpoints of an alignment, tokens first: rows of the vocabulary that stand for other
    tokens, special tokens, settings of the language model.

    A key that a config leaves out counts as what transformers takes for it. What only some roles say is not compared,
    nor are tokens where a tokenizer's file can't be read: a note says so.
    """
    checkpoints = alignment.checkpoints
    notes: list[str] = []
    try:
        vocabularies = {role: vocabulary_of(checkpoint) for role, checkpoint in checkpoints.items()}
        notes += _not_compared(vocabularies, checkpoints)
    except CheckpointError as error:
        vocabularies = dict.fromkeys(checkpoints, Vocabulary())
        notes.append(f"tokens: not compared; {error}")
    found = _tokens(vocabularies, alignment)
    for compared in (_tokenization, _templates, partial(_special, vocabularies=vocabularies)):
        try:
            found += compared(checkpoints)
        except CheckpointError as error:
            notes.append(f"tokens: not compared; {error}")
    notes += _without_rows(vocabularies, alignment)
    return CheckpointFit([*found, *_settings(checkpoints)], list(dict.fromkeys(notes)))


def _not_compared(vocabularies: Mapping[str, Vocabulary], checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    """A note on the roles that bring no tokenizer, where others do."""
    missing = [role for role, vocabulary in vocabularies.items() if not vocabulary.tokens]
    listed = [role for role in missing if checkpoints[role].headers_only]
    if listed:
        return [f"tokens: not compared; of {', '.join(listed)} only the headers were fetched."]
    if missing and len(missing) < len(vocabularies):
        return [f"tokens: not compared; {', '.join(missing)} has no tokenizer file beside its weights."]
    return []


def _without_rows(vocabularies: Mapping[str, Vocabulary], alignment: Alignment) -> list[str]:
    """A note on each role whose tokenizer has tokens beyond the rows of its embedding: none can be run."""
    notes = []
    for pair in alignment.pairs:
        if pair.site == EMBED:
            for role, part in pair.parts.items():
                rows = alignment.checkpoints[role][part.name].shape[0]
                tokens = vocabularies[role].tokens
                beyond = sorted(row for row in tokens if row >= rows)
                if beyond:
                    first = f"{_token(tokens[beyond[0]])} ({beyond[0]})"
                    notes.append(
                        f"{role}: its tokenizer has {len(beyond)} tokens that its {rows} embeddings have no row for, "
                        f"the first is {first}: a prompt with one of them can't be run. Give the tokenizer that "
                        "belongs to the weights, or the weights that were resized."
                    )
    return notes


def _settings(checkpoints: Mapping[str, Checkpoint]) -> list[Mismatch]:
    stated = {
        role: {**text_settings(checkpoint.config), **vision_settings(checkpoint.config)}
        for role, checkpoint in checkpoints.items()
    }
    found = []
    for name, setting in {**SETTINGS, **VISION_SETTINGS}.items():
        values = {role: settings[name] for role, settings in stated.items() if name in settings}
        if _differ(list(values.values())):
            told = {role: _setting(value) for role, value in values.items()}
            found.append(Mismatch(name=name, values=told, meaning=setting.meaning))
    return found


def _tokenization(checkpoints: Mapping[str, Checkpoint]) -> list[Mismatch]:
    """Whether texts are cut into other tokens of the same vocabulary; files of the same bytes cut alike."""
    files = {role: _own_file(checkpoint, TOKENIZER) for role, checkpoint in checkpoints.items()}
    held = {role: file for role, file in files.items() if file is not None}
    if not _differ([file.read_bytes() for file in held.values()]):
        return []
    parts = {role: cutting(file) for role, file in held.items()}
    odd = [
        name for name in next(iter(parts.values())) if _differ([each[name] for each in parts.values() if name in each])
    ]
    if not odd:
        return []
    told = {role: _setting("; ".join(f"{name} {each.get(name)}" for name in odd)) for role, each in parts.items()}
    meaning = (
        "The same text is cut into other tokens, so rows were trained in other company; the result cuts as the model "
        "that it is like."
    )
    return [Mismatch(name=TOKENIZATION, values=told, meaning=meaning)]


def _templates(checkpoints: Mapping[str, Checkpoint]) -> list[Mismatch]:
    found = {role: chat_templates.chat_template(checkpoint) for role, checkpoint in checkpoints.items()}
    told = {role: text for role, text in found.items() if text is not None}
    if not _differ(list(told.values())):
        return []
    return [Mismatch(name=chat_templates.NAME, values=told, meaning=chat_templates.MEANING)]


def _own_file(checkpoint: Checkpoint, name: str) -> Path | None:
    """A file of the checkpoint's tokenizer; an adapter's own goes before its base's."""
    return next((folder / name for folder in reversed(checkpoint.folders) if (folder / name).is_file()), None)


def _special(checkpoints: Mapping[str, Checkpoint], vocabularies: Mapping[str, Vocabulary]) -> list[Mismatch]:
    """The special tokens that are another token, or in another row."""
    found = []
    for name, meaning in MEANINGS.items():
        rows: dict[str, Found] = {
            role: each
            for role, checkpoint in checkpoints.items()
            if (each := special_tokens(name, checkpoint, vocabularies[role])) is not None
        }
        # Where a tokenizer is missing, only rows can be compared.
        known = all(token for _, token in rows.values())
        if _differ([(row, token) if known else row for row, token in rows.values()]):
            told = {
                role: f"{_token(token)} ({_setting(row)})" if token else _setting(row)
                for role, (row, token) in rows.items()
            }
            found.append(Mismatch(name=name, values=told, meaning=meaning))
    return found


def _tokens(vocabularies: Mapping[str, Vocabulary], alignment: Alignment) -> list[Mismatch]:
    """The shared rows that stand for other tokens in some role than in `like`."""
    shared = min((pair.shape[0] for pair in alignment.pairs if pair.site.component in VOCABULARY), default=None)
    like = vocabularies[alignment.like].tokens
    moved: dict[str, list[int]] = {}
    spare: dict[str, list[int]] = {}
    for role, vocabulary in vocabularies.items():
        other = vocabulary.tokens
        if role == alignment.like or not other or not like:
            continue
        rows = [row for row in like.keys() & other.keys() if shared is None or 0 <= row < shared]
        odd = sorted(row for row in rows if like[row] != other[row])
        names = {*like.values()}, {*other.values()}
        renamed = {row for row in odd if _is_renamed(like[row], other[row], *names)}
        moved[role], spare[role] = [row for row in odd if row not in renamed], sorted(renamed)
    table = {role: vocabulary.tokens for role, vocabulary in vocabularies.items()}
    total = len(like) if shared is None else min(len(like), shared)
    found = []
    if any(moved.values()):
        meaning = (
            f"Rows of embedding and head stand for other tokens ({_counts(moved, total)}): a mean of two such rows "
            "means neither."
        )
        values = _token_values(moved, table, alignment.like)
        found.append(Mismatch(name=TOKENS, values=values, meaning=meaning, serious=True))
    if any(spare.values()):
        meaning = (
            f"Rows that one keeps free are tokens in the other ({_counts(spare, total)}); one of them is untrained."
        )
        found.append(Mismatch(name=SPARE_TOKENS, values=_token_values(spare, table, alignment.like), meaning=meaning))
    return found


def _is_renamed(mine: str, other: str, my_tokens: set[str], other_tokens: set[str]) -> bool:
    """Whether one of two tokens in a row is a spare one's name, and none of them stands in another row instead."""
    moved = mine in other_tokens or other in my_tokens
    return not moved and bool(_SPARE.search(mine) or _SPARE.search(other))


def _counts(rows: Mapping[str, Sequence[int]], total: int) -> str:
    return ", ".join(f"{len(odd)} of {total} in {role}" for role, odd in rows.items() if odd)


def _token_values(
    rows: Mapping[str, Sequence[int]], table: Mapping[str, Mapping[int, str]], like: str
) -> dict[str, str]:
    """Role -> its tokens in the first rows that differ."""
    first = sorted({row for odd in rows.values() for row in odd})[:SHOWN_TOKENS]
    shown = [role for role in table if role == like or rows.get(role)]
    return {role: ", ".join(f"{row} {_token(table[role].get(row, ''))}" for row in first) for role in shown}


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _token(token: str) -> str:
    shown = visible(token[:SHOWN_CHARACTERS]).replace("\n", "\\n").replace("\t", "\\t")
    return f"'{shown}'"


def _setting(value: Any) -> str:
    """A setting in words: bounded, on one line, nothing in it that a terminal obeys."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 10**15 else f"{value:g}"
    if isinstance(value, Mapping):
        told = ", ".join(f"{key} {_setting(each)}" for key, each in value.items())
    elif isinstance(value, list):
        told = _runs([_setting(each) for each in value[:1000]])
    else:
        told = str(value) if not isinstance(value, int) or abs(value) < 10**15 else f"{value:.6e}"
    return visible(" ".join(told.split()))[:SHOWN_SETTING]


def _runs(words: Sequence[str]) -> str:
    """A list with repeated members counted: "3 x sliding_attention, full_attention"."""
    runs: list[tuple[str, int]] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1] = (word, runs[-1][1] + 1)
        else:
            runs.append((word, 1))
    return ", ".join(word if count == 1 else f"{count} x {word}" for word, count in runs[:8])
