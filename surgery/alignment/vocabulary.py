"""The vocabulary of a checkpoint: which token each row of its embedding stands for, from its tokenizer's files."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.pointers import refuse_pointer
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.errors import CheckpointError

SPECIAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")

# Most bytes of a sentencepiece or tiktoken file that are read: the largest known ones are a few MB.
MAX_VOCABULARY_BYTES: Final = 64 << 20

# The files that hold a vocabulary, the one that transformers takes first.
VOCABULARY_FILES: Final = ("tokenizer.json", "vocab.json", "vocab.txt")
TEKKEN: Final = "tekken.json"  # Mistral's own
BINARY_FILES: Final = ("tokenizer.model", "spiece.model", "sentencepiece*.model", "*.tiktoken")


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's files say. tokens: row -> token. special: role of a special token ("eos_token") -> token."""

    tokens: Mapping[int, str] = field(default_factory=dict)
    special: Mapping[str, str] = field(default_factory=dict)


def vocabulary_of(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a checkpoint; an adapter's own tokenizer goes before its base's. Empty where there is no
    tokenizer, or none that keeps its tokens in a known file.

    Raises CheckpointError that names a file of a tokenizer that can't be read.
    """
    for folder in reversed(checkpoint.folders):
        tokens = _tokens(folder)
        if tokens:
            return Vocabulary(tokens, _special(folder))
    return Vocabulary()


def _tokens(folder: Path) -> dict[int, str]:
    """Row -> token. Added tokens go before the vocabulary, and those of tokenizer.json before the other files'."""
    known: dict[int, str] = {}
    added: dict[int, str] = {}
    for name in VOCABULARY_FILES:
        file = folder / name
        if file.is_file():
            known, added = _lines(file) if name == "vocab.txt" else _from_json(file)
            break
    else:
        if (folder / TEKKEN).is_file():
            return _tekken(folder / TEKKEN)
        binary = [file for pattern in BINARY_FILES for file in sorted(folder.glob(pattern)) if file.is_file()]
        known = _from_binary(binary[0]) if binary else {}
    if not known:
        return {}
    return known | _added(folder) | added


def _lines(file: Path) -> tuple[dict[int, str], dict[int, str]]:
    text = _bytes(file).decode("utf-8", "replace")
    return dict(enumerate(line.rstrip("\r") for line in text.removesuffix("\n").split("\n"))), {}


def _from_json(file: Path) -> tuple[dict[int, str], dict[int, str]]:
    """The tokens of tokenizer.json, or of vocab.json, and those that were added to them."""
    data = read_json(file)
    if file.name == "vocab.json":
        return _by_row(data), {}
    model = data.get("model")
    found = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(found, list):  # Unigram: [token, score] in order.
        known = {row: str(entry[0]) for row, entry in enumerate(found) if isinstance(entry, list) and entry}
    elif isinstance(found, Mapping):
        known = _by_row(found)
    else:
        raise CheckpointError(f"{file}: expected a vocabulary under model.vocab, found none. Download it again.")
    entries = data.get("added_tokens")
    return known, dict(_entries((None, entry) for entry in (entries if isinstance(entries, list) else [])))


def _tekken(file: Path) -> dict[int, str]:
    """The tokens of Mistral's tekken.json: special ones in the first rows, the vocabulary by rank behind them, as many
    as the file says. Special tokens that the file leaves to its reader are left out."""
    data = read_json(file)
    match data:
        case {
            "config": {"default_num_special_tokens": int(first), "default_vocab_size": int(rows)},
            "vocab": [*entries],
        }:
            special = data.get("special_tokens")
        case _:
            raise CheckpointError(f"{file}: expected config and vocab of a tekken tokenizer. Download it again.")
    known = {}
    for entry in entries:
        match entry:
            case {"rank": int(rank), "token_bytes": str(token)} if 0 <= rank < rows - first:
                try:
                    known[first + rank] = _byte_level(base64.b64decode(token, validate=True))
                except ValueError as error:
                    raise CheckpointError(
                        f"{file}: rank {rank}: its token is not base64. Download it again."
                    ) from error
    for entry in special if isinstance(special, list) else []:
        match entry:
            case {"rank": int(rank), "token_str": str(token)} if 0 <= rank < first:
                known[rank] = token
    return known


def _by_row(rows: Mapping[str, Any]) -> dict[int, str]:
    return {row: token for token, row in rows.items() if isinstance(row, int)}


def _added(folder: Path) -> dict[int, str]:
    """The tokens that tokenizer_config.json and added_tokens.json add."""
    found: dict[int, str] = {}
    if (folder / "added_tokens.json").is_file():
        found = _by_row(read_json(folder / "added_tokens.json"))
    listed = _settings(folder, "tokenizer_config.json").get("added_tokens_decoder")
    return found | dict(_entries(listed.items() if isinstance(listed, Mapping) else []))


def _entries(entries: Iterable[tuple[Any, Any]]) -> Iterator[tuple[int, str]]:
    """(row, token) of entries as tokenizers write them; the row is the key, or stands in the entry."""
    for key, entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
            continue
        row = entry.get("id", key)
        if isinstance(row, int) or (isinstance(row, str) and row.isdecimal()):
            yield int(row), entry["content"]


def _special(folder: Path) -> dict[str, str]:
    """bos_token, eos_token, pad_token and unk_token, where the tokenizer says what they are."""
    found = {}
    for settings in (_settings(folder, "special_tokens_map.json"), _settings(folder, "tokenizer_config.json")):
        for name in SPECIAL:
            value = settings.get(name)
            token = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(token, str):
                found[name] = token
    return found


def _settings(folder: Path, name: str) -> Mapping[str, Any]:
    return read_json(folder / name) if (folder / name).is_file() else {}


def _from_binary(file: Path) -> dict[int, str]:
    """The tokens of a sentencepiece model, or of a tiktoken file, which has a token in base64 and its row a line."""
    refuse_pointer(file)
    data = _bytes(file)
    ranks = {}
    for line in data.split(b"\n"):
        token, _, row = line.strip().partition(b" ")
        if not token:
            continue
        try:
            ranks[int(row)] = _byte_level(base64.b64decode(token, validate=True))
        except (ValueError, binascii.Error):
            return dict(enumerate(_pieces(file, data)))
    return ranks


def _pieces(file: Path, data: bytes) -> Iterator[str]:
    """The pieces of a sentencepiece model in order: field 1 of the message, and field 1 of that, is a piece's text."""
    for tag, message in _fields(file, data):
        if tag == 1:
            yield next((text.decode("utf-8", "replace") for inner, text in _fields(file, message) if inner == 1), "")


def _fields(file: Path, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protocol buffer: (number, bytes)."""
    at = 0
    while at < len(data):
        key, at = _varint(file, data, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(file, data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(file, data, at)
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise _broken(file)
    if at != len(data):
        raise _broken(file)


def _varint(file: Path, data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            break
        value |= (data[at + place] & 127) << (7 * place)
        if data[at + place] < 128:
            return value, at + place + 1
    raise _broken(file)


def _broken(file: Path) -> CheckpointError:
    return CheckpointError(f"{file}: expected a sentencepiece model, found broken bytes. Download it again.")


def _bytes(file: Path) -> bytes:
    try:
        size = file.stat().st_size
        if size > MAX_VOCABULARY_BYTES:
            raise CheckpointError(f"{file}: {size} bytes, too long for a vocabulary. Download it again.")
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror or error}). Check your rights.") from error


def _byte_letters() -> dict[int, str]:
    """Byte -> the letter that byte-level tokenizers write for it: itself where it prints, else one from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


BYTE_LETTERS: Final = _byte_letters()


def _byte_level(token: bytes) -> str:
    return "".join(BYTE_LETTERS[byte] for byte in token)
