"""Settings of the whole process: the program may change them, the library leaves them alone."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from vlsurgery import surgery

TEMPORARY_TENSORS = """
import resource
import torch
from vlsurgery.surgery.runtime.host import keep_freed_memory
from vlsurgery.surgery.runtime.worker_pool import worker_pool

def work():
    rounds(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rounds(50)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def rounds(count):
    for _ in range(count):
        held = [torch.ones(1 << 18) for _ in range(70)]  # More than a heap of a thread's own has.
        del held

keep_freed_memory()
with worker_pool() as pool:
    pool.submit(work).result()
"""

DIFF = """
import ctypes, gc, json, sys
import torch
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff import kernels
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.runtime import host

def forbidden(*arguments):
    raise AssertionError("the library changes its host")

torch.set_num_threads(3)
host.keep_freed_memory = host.torch_in_one_thread = torch.set_num_threads = gc.set_threshold = forbidden
ctypes.CDLL = forbidden
inside = set()

def progress(items, label, total=None):
    for item in items:
        inside.add(torch.get_num_threads())
        yield item

diff(align({"base": Checkpoint.open(sys.argv[1]), "adapted": Checkpoint.open(sys.argv[2])}), "full", progress)
print(json.dumps([sorted(inside), torch.get_num_threads()]))
"""

IN_ONE_THREAD = """
import torch
from vlsurgery.surgery.runtime.host import torch_in_one_thread
from vlsurgery.surgery.runtime.worker_pool import worker_pool

torch.set_num_threads(3)
with torch_in_one_thread(), worker_pool() as pool:
    print(torch.get_num_threads(), pool.submit(torch.get_num_threads).result())
print(torch.get_num_threads())
"""


def output(script: str, *arguments: Path) -> str:
    command = [sys.executable, "-P", "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone")
def test_a_thread_takes_freed_memory_again() -> None:
    pages = 50 * 70 * (1 << 20) // resource.getpagesize()
    assert int(output(TEMPORARY_TENSORS)) < pages / 100


def test_torch_has_one_thread_in_the_pool_where_the_program_wants_it() -> None:
    assert output(IN_ONE_THREAD).split() == ["1", "1", "3"]


def test_a_diff_leaves_the_process_as_it_was(
    tmp_path: Path, write: Callable[..., Path], llama: Callable[..., dict[str, Tensor]]
) -> None:
    """Torch's threads stay as many, and neither the allocator nor the garbage collector is set."""
    folders = [write(tmp_path / role, llama(seed)) for seed, role in enumerate(("base", "adapted"))]
    assert json.loads(output(DIFF, *folders)) == [[3], 3]


def test_only_one_module_of_surgery_changes_the_process_and_only_workers_call_it() -> None:
    """The process of a cluster's worker is its own."""
    (room,) = surgery.__path__
    settings = ("mallopt", "set_num_threads(", "set_threshold(", "runtime.host")
    found = {
        path.name
        for path in Path(room).rglob("*.py")
        if any(each in path.read_text(encoding="utf-8") for each in settings)
    }
    assert found == {"host.py", "ray_engine.py"}
