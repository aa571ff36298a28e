"""Workers for models: as many as the machines have room for, each with a GPU where there are some."""

import pytest

from vlsurgery.cli.workflow.engines import engine_for_models, with_models
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.ray_engine import RayEngine

GB = 10**9
CPU = {"CPU": 16.0, "memory": 100.0 * GB}
GPUS = {**CPU, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "asked", "nbytes", "device", "expected"),
    [
        # Workers, GPUs each, bytes each.
        ([CPU], None, 30 * GB, None, (3, 0, 30 * GB)),
        ([CPU, CPU], None, 30 * GB, None, (6, 0, 30 * GB)),
        ([CPU], 2, 30 * GB, None, (2, 0, 30 * GB)),
        ([CPU], None, GB // 1000, None, (16, 0, GB // 1000)),
        ([CPU], None, 300 * GB, None, (1, 0, 100 * GB)),
        ([GPUS, CPU], None, 30 * GB, None, (8, 1, 0)),
        ([GPUS, GPUS], 4, 30 * GB, "cuda", (4, 1, 0)),
        ([GPUS, GPUS], None, 30 * GB, "auto", (2, 8, 0)),
        ([GPUS], None, 30 * GB, "cpu", (3, 0, 30 * GB)),
    ],
)
def test_workers_have_room_for_a_model(
    nodes: list[dict[str, float]],
    asked: int | None,
    nbytes: int,
    device: str | None,
    expected: tuple[int, float, int],
) -> None:
    engine = with_models(RayEngine(16 * len(nodes), 16, asked), nodes, nbytes, device)
    assert (min(engine.workers or 99, engine.cores), engine.gpus, engine.memory) == expected


def test_a_device_that_a_worker_cannot_choose_is_refused() -> None:
    with pytest.raises(SurgeryError, match="--device cuda:1: Ray says"), engine_for_models("local", [], "cuda:1"):
        pass
    with engine_for_models(None, [], "cuda:1") as engine:
        assert engine is None
