"""What the program sets for its whole process while it works on weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.host import keep_freed_memory, torch_in_one_thread


@contextmanager
def tuned_for_weights(checkpoints: Iterable[Checkpoint], with_torch: bool = False) -> Iterator[None]:
    """Run the body with the settings that make diffs and merges of checkpoints fastest.

    with_torch: whether the body computes with torch, as reading a checkpoint with an adapter does; torch then runs in
    one thread. It is not imported otherwise.
    """
    keep_freed_memory()
    with_torch = with_torch or any(checkpoint.is_computed for checkpoint in checkpoints)
    with torch_in_one_thread() if with_torch else nullcontext():
        yield
