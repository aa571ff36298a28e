"""Files that are filled in parallel hold what one thread would have written, and a fault leaves nobody writing."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.writing import filling
from surgery.writing.filling import BATCH, MEMBERS, Filling, Piece, batches, most_under_way

SIZES = st.lists(st.integers(0, 3) | st.integers(0, 20_000), max_size=40)


def nothing(_: memoryview) -> None:
    """Leaves the buffer as it is."""


def fill(pool: ThreadPoolExecutor, path: Path, pieces: list[Piece], finished: list[str]) -> None:
    with Filling(pool) as filled:
        filled.add(path, b"", pieces, finished.append)
        filled.settle()


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
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool, Filling(pool) as files_filled:
        patch.setattr(filling, "BATCH", 5_000)
        patch.setattr(filling, "HELD", 30_000)
        patch.setattr(filling, "FLUSH", 10_000)
        for number, sizes in enumerate(files):
            parts = [seed.randbytes(size) for size in sizes]
            whole.append(b"".join([b"head", *parts]))
            (folder / str(number)).write_bytes(bytes(len(whole[-1])))
            pieces = [copied(part, seed.choice([0, 0, 0.001])) for part in parts]
            files_filled.add(folder / str(number), b"head", pieces, found.append)
        files_filled.settle()
    assert [(folder / str(number)).read_bytes() for number in range(len(files))] == whole
    assert found == [sha256(content).hexdigest() for content in whole]


@given(sizes=st.lists(st.integers(0, 2 * BATCH) | st.integers(0, 9), max_size=30))
def test_batches_keep_the_order_and_hand_over_large_pieces_alone(sizes: list[int]) -> None:
    pieces = [Piece(size, nothing) for size in sizes]
    made = list(batches(pieces))
    assert [piece for batch in made for piece in batch] == [piece for piece in pieces if piece.nbytes]
    assert all(sum(piece.nbytes for piece in batch) <= BATCH or len(batch) == 1 for batch in made)


def test_very_many_small_pieces_are_several_batches() -> None:
    made = list(batches([Piece(1, nothing)] * (3 * MEMBERS + 1)))
    assert [len(batch) for batch in made] == [MEMBERS] * 3 + [1]


@pytest.mark.parametrize("broken", [0, 5, 19])
def test_a_fault_comes_up_and_nobody_writes_any_more(tmp_path: Path, broken: int) -> None:
    path, finished = tmp_path / "file", []
    path.write_bytes(bytes(20 * BATCH))

    def fail(_: memoryview) -> None:
        raise OSError("made to fail")

    pieces = [copied(b"x" * BATCH, 0.002) if number != broken else Piece(BATCH, fail) for number in range(20)]
    with ThreadPoolExecutor(3) as pool:
        with pytest.raises(OSError, match="made to fail"):
            fill(pool, path, pieces, finished)
        left = path.read_bytes()
        time.sleep(0.02)
        assert path.read_bytes() == left
    assert finished == []


def test_memory_stays_within_a_few_pieces(tmp_path: Path) -> None:
    """No more buffers than may be under way, and each is used again."""
    path, count = tmp_path / "file", 3 * most_under_way()
    path.write_bytes(bytes(count * BATCH))
    addresses, lock = set(), threading.Lock()

    def make(view: memoryview) -> None:
        import numpy as np

        with lock:
            addresses.add(np.frombuffer(view, np.uint8).ctypes.data)

    with ThreadPoolExecutor(2) as pool:
        fill(pool, path, [Piece(BATCH, make)] * count, [])
    assert len(addresses) <= most_under_way()


def test_pieces_begin_where_vector_instructions_want_them(tmp_path: Path) -> None:
    import numpy as np

    path, sizes, places = tmp_path / "file", [1, 3, 64, 100, 7], []
    path.write_bytes(bytes(sum(sizes)))

    def make(view: memoryview) -> None:
        places.append(np.frombuffer(view, np.uint8).ctypes.data % filling.ALIGNMENT)

    with ThreadPoolExecutor(1) as pool:
        fill(pool, path, [Piece(size, make) for size in sizes], [])
    assert places == [0] * len(sizes)
