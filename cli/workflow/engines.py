"""The engine that a command's `--ray` names."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.runtime.engine import Engine
    from vlsurgery.surgery.runtime.ray_engine import RayEngine

FLOAT_BYTES: Final = 4  # of a weight in float32, which the models of a CPU mostly run in
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


@contextmanager
def engine_for_models(
    address: str | None, checkpoints: "Iterable[Checkpoint]", device: str | None
) -> Iterator["Engine | None"]:
    """The engine that asks models by the Ray cluster at an address, while the block runs; None without address.

    checkpoints: of which a worker runs one at a time. device: as `--device` has it; where the cluster has GPUs, a
    worker gets one, or with `auto` all of a machine, unless models are to run on the CPU.

    Raises SurgeryError as `ray_cluster`, and for a device that a worker can't choose.
    """
    if address is None:
        yield None
        return
    if device not in (None, "cpu", "cuda", "auto"):
        raise SurgeryError(
            f"--device {device}: Ray says which one a worker has. Leave --device out, or give cpu or auto."
        )
    from vlsurgery.surgery.runtime.ray_cluster import machines, ray_cluster

    nbytes = max((FLOAT_BYTES * sum(tensor.numel for tensor in each.values()) for each in checkpoints), default=0)
    with ray_cluster(address) as engine:
        yield with_models(engine, machines(), nbytes, device)


def with_models(
    engine: "RayEngine", nodes: "Sequence[Mapping[str, float]]", nbytes: int, device: str | None
) -> "RayEngine":
    """The engine whose workers each have room for a model.

    nodes: as `machines` gives them. nbytes: of the largest model, in memory.
    """
    gpus = [math.floor(node.get("GPU", 0.0)) for node in nodes]
    if any(gpus) and device != "cpu":
        each = max(gpus) if device == "auto" else 1
        places = sum(count // each for count in gpus)
        return replace(engine, workers=min(places, engine.workers or places), gpus=float(each))
    # What no machine has, none is asked for: a worker would wait without end. It may still fit, in bfloat16.
    memory = [math.floor(node.get("memory", 0.0)) for node in nodes]
    wanted = min(nbytes, max(memory, default=0))
    places = sum(count // wanted for count in memory) if wanted else engine.cores
    return replace(engine, workers=min(places, engine.workers or engine.cores), memory=wanted)
