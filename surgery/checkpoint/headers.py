"""Reads and writes safetensors headers; every number in one that is read is checked.

Layout of a file (https://github.com/huggingface/safetensors#format): 8 bytes, little-endian, the header's length N;
N bytes of JSON, tensor name -> {dtype, shape, data_offsets: [start, stop)}; then the tensors' bytes, to the last byte.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from vlsurgery.surgery.checkpoint.pointers import refuse_pointer
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.excerpts import excerpt

# dtype in safetensors -> bits of one entry. Below 8 bits, entries share bytes.
BITS: Final = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

# Most bytes of a header, by the format.
MAX_HEADER_BYTES: Final = 100_000_000

# Bytes of the first request for a header elsewhere, which mostly holds all of it.
FIRST_BYTES: Final = 1 << 16

KEYS: Final = frozenset({"dtype", "shape", "data_offsets"})


class Entry(NamedTuple):
    """One tensor in a file: its dtype by the format's name, its shape, and where its bytes are in the file.

    A tuple, because a checkpoint may hold a hundred thousand of them.
    """

    name: str
    safetensors_dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one file. entries: in file order. digest: the SHA-256 of the header's JSON bytes. mtime_ns: the
    file's modification time; of one at a URL, a number that changes with its version."""

    entries: tuple[Entry, ...]
    metadata: dict[str, str]
    digest: str
    size: int
    mtime_ns: int


def read_header(path: Path) -> Header:
    """Read and check the header of one safetensors file, in memory proportional to the header.

    Every byte behind the header must belong to exactly one tensor. Raises CheckpointError that names the file, the
    tensor where there is one, what was expected and what was found.
    """
    refuse_pointer(path)
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            length = header_length(path, file.read(8), status.st_size)
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error
    if len(raw) != length:
        raise CheckpointError(f"{path}: changed while its header was read. Try again once nothing writes to it.")
    return parse_header(path, raw, status.st_size, status.st_mtime_ns)


def header_by_ranges(path: Path | str, read: Callable[[int, int], tuple[bytes, int]], mtime_ns: int = 0) -> Header:
    """The header of a file that is elsewhere, checked as `read_header` does.

    path: the file's name in errors. read: gives the bytes from one place to another, or fewer at the file's end, and
    the file's size.
    """
    start, size = read(0, FIRST_BYTES)
    length = header_length(path, start[:8], size)
    raw = start[8 : 8 + length]
    if len(raw) < length:
        raw += read(8 + len(raw), 8 + length)[0]
    if len(raw) != length:
        raise CheckpointError(f"{path}: the server sent {len(raw)} bytes of a header of {length}. Try again.")
    return parse_header(path, raw, size, mtime_ns)


def header_length(path: Path | str, start: bytes, size: int) -> int:
    """The header's length by the first eight bytes, `start`, of a file of `size` bytes.

    path: the file's name in errors. Raises CheckpointError for an impossible length, before memory is allocated.
    """
    length = int.from_bytes(start, "little")
    if size < 8:
        raise CheckpointError(
            f"{path}: truncated: {size} bytes, less than a header's 8-byte length. Download it again."
        )
    if length > size - 8:
        raise CheckpointError(
            f"{path}: not a safetensors file, or truncated: its header claims {length} bytes, "
            f"but {size - 8} follow. Download it again."
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: not a safetensors file: its header claims {length} bytes, and the format allows "
            f"{MAX_HEADER_BYTES}. Download it again."
        )
    return length


def parse_header(path: Path | str, raw: bytes, size: int, mtime_ns: int) -> Header:
    """The header of a file of `size` bytes from its JSON, `raw`; errors as `read_header` has them."""
    members = _members(path, raw)
    metadata = members.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(map(_is_text, (*metadata, *metadata.values()))):
        raise CheckpointError(f"{path}: corrupt header: __metadata__ must map strings to strings.")
    base = 8 + len(raw)
    entries = [_entry(path, name, fields, base, size) for name, fields in members.items()]
    entries.sort(key=_place)
    _check_layout(path, entries, base, size)
    return Header(tuple(entries), metadata, hashlib.sha256(raw).hexdigest(), size, mtime_ns)


def header_bytes(tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: dict[str, str]) -> bytes:
    """The header (its length included) of a file that holds `tensors`, (name, dtype, shape, nbytes), in that order.

    Padded with spaces to a multiple of 8 bytes, as the format asks, so that tensors start aligned.
    """
    members: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for name, safetensors_dtype, shape, nbytes in tensors:
        members[name] = {"dtype": safetensors_dtype, "shape": list(shape), "data_offsets": [start, start + nbytes]}
        start += nbytes
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _members(path: Path | str, raw: bytes) -> dict[str, Any]:
    """The header's JSON as a dict. Raises CheckpointError for a name that occurs twice."""
    try:
        text = raw.decode("utf-8")
        members = json.loads(text)
        if not isinstance(members, dict):
            raise CheckpointError(f"{path}: corrupt header: a JSON object was expected. Download it again.")
        # Each key has a colon, so as many colons as keys mean no duplicates; with more, the slower check decides.
        if raw.count(b":") != len(members) + sum(len(value) for value in members.values() if isinstance(value, dict)):
            json.loads(text, object_pairs_hook=lambda pairs: _check_unique(path, pairs))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: corrupt header: not JSON ({error}). Download it again.") from error
    return members


def _check_unique(path: Path | str, pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise CheckpointError(f"{path}: corrupt header: {excerpt(name, 200)} occurs twice. Download it again.")
        seen.add(name)


def _is_text(value: object) -> bool:
    """Whether this is a string that UTF-8 can encode: JSON can hold half a surrogate pair."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _entry(path: Path | str, name: str, fields: object, base: int, size: int) -> Entry:
    """One member of the header, checked. base: where the tensors' bytes begin."""
    if not (name.isascii() or _is_text(name)) or not name:
        raise _corrupt(path, name, "not a name.")
    if not isinstance(fields, dict) or fields.keys() != KEYS:
        raise _corrupt(path, name, "it must have dtype, shape and data_offsets, and nothing else.")
    safetensors_dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    bits = BITS.get(safetensors_dtype) if isinstance(safetensors_dtype, str) else None
    if bits is None:
        raise _corrupt(path, name, f"unknown dtype {excerpt(safetensors_dtype)}.")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise _corrupt(path, name, "its data_offsets are not two counts.")
    start, stop = offsets
    if type(start) is not int or type(stop) is not int or start < 0:
        raise _corrupt(path, name, "its data_offsets are not two counts.")
    if not start <= stop <= size - base:
        raise _corrupt(
            path,
            name,
            f"it lies at bytes {start} to {stop}, but the file holds {size - base} bytes of tensors: truncated.",
        )
    if not isinstance(shape, list):
        raise _corrupt(path, name, "its shape is not a list of counts.")
    count, most = bits, 64 * size
    for extent in shape:
        if type(extent) is not int or extent < 0:
            raise _corrupt(path, name, "its shape is not a list of counts.")
        count *= extent
        # Bounded, so that a corrupt shape costs no arithmetic on huge numbers; a later zero still counts.
        if count > most:
            count = most
    if count != 8 * (stop - start):
        raise _corrupt(
            path, name, f"shape and dtype {safetensors_dtype} do not need the {stop - start} bytes that it has."
        )
    return Entry(name, safetensors_dtype, tuple(shape), base + start, stop - start)


def _corrupt(path: Path | str, name: str, fault: str) -> CheckpointError:
    return CheckpointError(f"{path}: corrupt header: tensor {excerpt(name, 200)}: {fault} Download the file again.")


def _place(entry: Entry) -> tuple[int, int]:
    return entry.offset, entry.nbytes


def _check_layout(path: Path | str, entries: list[Entry], base: int, size: int) -> None:
    """Raise CheckpointError where tensors overlap, leave a gap, or do not reach the file's last byte."""
    end, before = base, "the header"
    for entry in entries:
        if entry.offset != end:
            fault = "overlaps" if entry.offset < end else "leaves a gap behind"
            raise CheckpointError(f"{path}: corrupt header: tensor {excerpt(entry.name, 200)} {fault} {before}.")
        end, before = entry.offset + entry.nbytes, excerpt(entry.name, 200)
    if end != size:
        raise CheckpointError(
            f"{path}: {size - end} bytes at its end belong to no tensor: corrupt, or still being written."
        )
