"""Files written in parallel hold what one thread would have written; after a fault nothing is written any more."""

import errno
import fcntl
import itertools
import mmap
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.surgery.writer import direct_io, pipeline
from vlsurgery.surgery.writer.direct_io import PAGE, DirectFile
from vlsurgery.surgery.writer.pipeline import (
    BATCH_BYTES,
    MAX_BATCH_PIECES,
    Piece,
    WritePipeline,
    batches,
    max_batches_in_flight,
)

SIZES = st.lists(st.integers(0, 3) | st.integers(0, 20_000) | st.just(PAGE), max_size=40)


def nothing(_: memoryview) -> None:
    """Leaves the buffer as it is."""


def fill(pool: ThreadPoolExecutor, path: Path, pieces: list[Piece], finished: list[str]) -> None:
    with WritePipeline(pool) as writing:
        writing.add(path, b"", pieces, finished.append)
        writing.drain()


def copied(content: bytes, pause: float = 0.0) -> Piece:
    def make(view: memoryview) -> None:
        time.sleep(pause)
        view[:] = content

    return Piece(len(content), make)


@settings(max_examples=40, deadline=None)
@given(files=st.lists(SIZES, min_size=1, max_size=4), seed=st.randoms())
def test_the_same_bytes_as_one_after_another(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], seed: random.Random
) -> None:
    folder, found, whole = tmp_path_factory.mktemp("filled"), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "BATCH_BYTES", 5_000)
        patch.setattr(pipeline, "MAX_BYTES_IN_FLIGHT", 30_000)
        patch.setattr(direct_io, "FLUSH_BYTES", 10_000)
        with ThreadPoolExecutor(3) as pool, WritePipeline(pool) as writing:
            for number, sizes in enumerate(files):
                parts = [seed.randbytes(size) for size in sizes]
                whole.append(b"".join([b"head", *parts]))
                (folder / str(number)).write_bytes(bytes(len(whole[-1])))
                pieces = [copied(part, seed.choice([0, 0, 0.001])) for part in parts]
                writing.add(folder / str(number), b"head", pieces, found.append)
            writing.drain()
    assert [(folder / str(number)).read_bytes() for number in range(len(files))] == whole
    assert found == [sha256(content).hexdigest() for content in whole]


@given(sizes=st.lists(st.integers(0, 2 * BATCH_BYTES) | st.integers(0, 9), max_size=30))
def test_batches_keep_the_order_and_submit_large_pieces_alone(sizes: list[int]) -> None:
    pieces = [Piece(size, nothing) for size in sizes]
    made = list(batches(pieces))
    assert [piece for batch in made for piece in batch] == [piece for piece in pieces if piece.nbytes]
    assert all(sum(piece.nbytes for piece in batch) <= BATCH_BYTES or len(batch) == 1 for batch in made)


def test_very_many_small_pieces_are_several_batches() -> None:
    made = list(batches([Piece(1, nothing)] * (3 * MAX_BATCH_PIECES + 1)))
    assert [len(batch) for batch in made] == [MAX_BATCH_PIECES] * 3 + [1]


@pytest.mark.parametrize("broken", [0, 5, 19])
def test_a_fault_comes_up_and_nobody_writes_any_more(tmp_path: Path, broken: int) -> None:
    path, finished = tmp_path / "file", []
    path.write_bytes(bytes(20 * BATCH_BYTES))

    def fail(_: memoryview) -> None:
        raise OSError("made to fail")

    pieces = [
        copied(b"x" * BATCH_BYTES, 0.002) if number != broken else Piece(BATCH_BYTES, fail) for number in range(20)
    ]
    with ThreadPoolExecutor(3) as pool:
        with pytest.raises(OSError, match="made to fail"):
            fill(pool, path, pieces, finished)
        left = path.read_bytes()
        time.sleep(0.02)
        assert path.read_bytes() == left
    assert finished == []


def test_memory_stays_within_a_few_pieces(tmp_path: Path) -> None:
    """No more buffers than may be under way, and each is used again."""
    path, count = tmp_path / "file", 3 * max_batches_in_flight()
    path.write_bytes(bytes(count * BATCH_BYTES))
    addresses, lock = set(), threading.Lock()

    def make(view: memoryview) -> None:
        with lock:
            addresses.add(np.frombuffer(view, np.uint8).ctypes.data)

    with ThreadPoolExecutor(2) as pool:
        fill(pool, path, [Piece(BATCH_BYTES, make)] * count, [])
    assert len(addresses) <= max_batches_in_flight()


def test_pieces_lie_in_memory_as_in_the_file(tmp_path: Path) -> None:
    """Relative to a page, as direct writes need it: so whole pages of a file are whole pages of memory."""
    path, sizes, places = tmp_path / "file", [1, 3, PAGE, 100, BATCH_BYTES, 7], []
    path.write_bytes(bytes(sum(sizes)))

    def make(view: memoryview) -> None:
        places.append(np.frombuffer(view, np.uint8).ctypes.data % PAGE)

    with ThreadPoolExecutor(1) as pool:
        fill(pool, path, [Piece(size, make) for size in sizes], [])
    assert places == [sum(sizes[:number]) % PAGE for number in range(len(sizes))]


def without_direct(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(os, "O_DIRECT", raising=False)


def refusing_to_open(patch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def open_(path: Path, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct writes here")
        return opened(path, flags, *more)

    patch.setattr(os, "open", open_)


def refusing_to_write(patch: pytest.MonkeyPatch) -> None:
    """As a file system that lets files be opened so, and gives up behind the first page."""
    pwrite = os.pwrite

    def written(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            if offset:
                raise OSError(errno.EINVAL, "no direct write here")
            data = data[:PAGE]
        return pwrite(descriptor, data, offset)

    patch.setattr(os, "pwrite", written)


def untouched(patch: pytest.MonkeyPatch) -> None:
    """The file system as it is."""


@pytest.mark.parametrize("hindrance", [untouched, without_direct, refusing_to_open, refusing_to_write])
@settings(max_examples=20)
@given(
    stops=st.sets(st.integers(1, 5 * PAGE) | st.sampled_from([PAGE, 2 * PAGE, 3 * PAGE]), min_size=1, max_size=6),
    order=st.randoms(),
)
def test_stretches_written_in_any_order_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    hindrance: Callable[[pytest.MonkeyPatch], None],
    stops: set[int],
    order: random.Random,
) -> None:
    path, ends = tmp_path_factory.getbasetemp() / "whole", [0, *sorted(stops)]
    memory, content = mmap.mmap(-1, 6 * PAGE), order.randbytes(ends[-1])
    memory[: len(content)] = content
    path.write_bytes(bytes(len(content)))
    with pytest.MonkeyPatch.context() as patch:
        hindrance(patch)
        file = DirectFile(path)
        stretches = list(itertools.pairwise(ends))
        order.shuffle(stretches)
        for start, stop in stretches:
            file.write(memoryview(memory)[start:stop], start)
        file.sync()
        file.close()
    assert path.read_bytes() == content


def test_what_the_disk_refuses_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * PAGE))
    file = DirectFile(path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no room"):
        file.write(memoryview(mmap.mmap(-1, 2 * PAGE)), 0)
    file.close()
