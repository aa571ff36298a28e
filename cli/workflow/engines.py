"""The engine that a command's `--ray` names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vlsurgery.surgery.runtime.engine import Engine

WORKER_BYTES: Final = 1_200 << 20  # the most memory that a worker takes for weights, which Ray keeps free for it


@contextmanager
def engine_for_weights(address: str | None) -> Iterator["Engine | None"]:
    """The engine that diffs and merges by the Ray cluster at an address, while the block runs; None without address.

    Raises SurgeryError as `ray_cluster`.
    """
    if address is None:
        yield None
        return
    from vlsurgery.surgery.runtime.ray_cluster import ray_cluster

    with ray_cluster(address, memory=WORKER_BYTES) as engine:
        yield engine
