"""Buffers are private, empty and used again; a thread keeps no more of them than its part."""

import numpy as np
import pytest

from vlsurgery.surgery.runtime.buffers import new_buffer
from vlsurgery.surgery.runtime.scratch import ScratchBuffers
from vlsurgery.surgery.runtime.worker_pool import cores


@pytest.mark.parametrize("nbytes", [1, 4096, (1 << 22) + 4097])
def test_a_buffer_is_empty_private_and_as_large_as_asked(nbytes: int) -> None:
    memory, other = new_buffer(nbytes), new_buffer(nbytes)
    assert memory[:] == bytes(nbytes)
    memory[-1:] = b"x"
    assert memory[-1:] == b"x"
    assert other[:] == bytes(nbytes)


def test_a_thread_uses_its_memory_again_until_it_would_keep_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlsurgery.surgery.runtime.scratch.MAX_SCRATCH_BYTES", 4000 * cores())
    memory, bits = ScratchBuffers(), np.dtype(np.uint8)
    first, other = memory.vector("first", 1500, bits), memory.vector("other", 1500, bits)
    assert not np.shares_memory(first, other)
    assert np.shares_memory(memory.vector("first", 300, np.dtype(np.float32)), first)
    assert np.shares_memory(memory.vector("other", 1500, bits), other)
    assert not np.shares_memory(memory.vector("first", 2000, bits), first)
    assert np.shares_memory(memory.vector("other", 1500, bits), other)
    much = memory.vector("much", 5000, bits)
    assert not np.shares_memory(memory.vector("much", 5000, bits), much)
    assert not np.shares_memory(memory.vector("other", 1500, bits), other)
