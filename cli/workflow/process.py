"""What the program sets for its whole process while it works on weights."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from vlsurgery.surgery.runtime.host import keep_freed_memory, torch_in_one_thread


@contextmanager
def tuned_for_weights(with_torch: bool = False) -> Iterator[None]:
    """The process as diffs and merges are fastest in. with_torch: whether torch computes, whose own threads are then
    off; work that does without it need not wait for its import."""
    keep_freed_memory()
    with torch_in_one_thread() if with_torch else nullcontext():
        yield
