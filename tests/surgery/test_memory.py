"""Memory is used again: what threads free and take anew comes from what the process has, and costs no page faults."""

import resource
import subprocess
import sys

import pytest

from surgery.memory import new_buffer

MANY = """
import resource
import torch
from surgery.workers import crew

def work():
    rounds(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rounds(50)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def rounds(count):
    for _ in range(count):
        held = [torch.ones(1 << 18) for _ in range(70)]  # More than a heap of a thread's own has.
        del held

with crew() as pool:
    pool.submit(work).result()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="says so of glibc alone")
def test_a_thread_takes_freed_memory_again() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    pages = 50 * 70 * (1 << 20) // resource.getpagesize()
    assert int(done.stdout) < pages / 100


@pytest.mark.parametrize("nbytes", [1, 4096, (1 << 22) + 4097])
def test_a_buffer_is_empty_private_and_as_large_as_asked(nbytes: int) -> None:
    memory, other = new_buffer(nbytes), new_buffer(nbytes)
    assert memory[:] == bytes(nbytes)
    memory[-1:] = b"x"
    assert memory[-1:] == b"x"
    assert other[:] == bytes(nbytes)
