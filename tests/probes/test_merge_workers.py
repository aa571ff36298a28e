"""Merges that are measured by workers are chosen among as those of one process, to the bit."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from vlsurgery.probes import trust_region
from vlsurgery.probes.linearised import intervals
from vlsurgery.probes.models import Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TargetsResult, TradeoffResult
from vlsurgery.probes.selection import Choosing, choose, recipe_of
from vlsurgery.probes.targets import working_prompts
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

CELLS = (("harmful", "text"), ("harmless", "benign"), ("capability", "own"))
GAINS = {"0.mlp": 0.5, "1.attn": 0.25}


@pytest.fixture(scope="module")
def few(every: list[Prompt]) -> list[Prompt]:
    """Four `fit` and `select` prompts of each of three cells, with and without pictures."""
    cells: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in working_prompts(every):
        if (prompt.set, prompt.modality) in CELLS:
            cells.setdefault((prompt.split, prompt.set, prompt.modality), []).append(prompt)
    return [prompt for prompts in cells.values() for prompt in prompts[:4]]


@pytest.fixture(scope="module")
def alignment(trio: Any) -> Alignment:
    return align({role: trio.checkpoints[role] for role in ("base", "adapted", "safety")})


def content(result: TradeoffResult) -> dict[str, Any]:
    found = result.model_dump(mode="json", exclude={"created"})
    for point in found["points"]:
        assert point.pop("seconds") > 0
    return found


def test_workers_measure_what_one_process_measures(
    alignment: Alignment,
    few: list[Prompt],
    targets: TargetsResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    far_stayers: Any,
    bars: Any,
) -> None:
    # Of one model, which no worker sees; many take longer than all that is measured here.
    monkeypatch.setattr(trust_region, "intervals", partial(intervals, resamples=5))

    def chosen(name: str, engine: Any = None) -> TradeoffResult:
        how = Choosing(
            "linearised",
            toward="base",
            attribution=GAINS,
            gradients=tmp_path / f"{name}.safetensors",
            frontier=2,
            engine=engine,
        )
        result = choose(alignment, few, targets, how, bars.told, Loader(dtype="float32"))
        recipe_of(result, alignment.checkpoints, GAINS).save(tmp_path / f"{name}.yaml")
        return result

    alone = chosen("alone")
    before, engine = list(bars.done), far_stayers()
    bars.done.clear()
    divided = chosen("divided", engine)
    assert content(divided) == content(alone)
    for end in ("safetensors", "yaml"):
        assert (tmp_path / f"divided.{end}").read_bytes() == (tmp_path / f"alone.{end}").read_bytes()
    assert bars.done == before
    assert all(total == found for _, total, found in bars.done)
    assert engine.places == [5]  # strengths of one source in quarters
    assert engine.set_ups == 3  # two workers, and one in the place of the dead one
    apart = [point.policy in ("uniform", "attribution", "frontier") for point in divided.points]
    asked = Counter(type(item).__name__ for items in engine.lists for item in items)
    taken = [total for label, total, _ in bars.done if label == "gradients of the prompts"]
    assert asked == {"NumberedTable": sum(apart) + len(divided.effects), "GradientBatch": sum(taken)}
    assert divided.effects
    assert {"uniform", "attribution", "frontier", "linearised"} == {point.policy for point in divided.points}


def test_a_checkpoint_that_is_another_one_there_is_not_merged(
    trio: Any, few: list[Prompt], targets: TargetsResult, tmp_path: Path, far_stayers: Any
) -> None:
    copytree(trio.adapted, tmp_path / "adapted")
    opened = align({"base": trio.checkpoints["base"], "adapted": Checkpoint.open(tmp_path / "adapted")})
    assert opened.checkpoints["adapted"].identity

    class Late(far_stayers):  # type: ignore[misc]
        @contextmanager
        def staying(self, set_up: Any, num_items: int) -> Iterator[Any]:
            copytree(trio.safety, tmp_path / "adapted", dirs_exist_ok=True)
            with super().staying(set_up, num_items) as do:
                yield do

    with pytest.raises(CheckpointError, match=r"adapted .*: is another checkpoint than was opened at first") as raised:
        choose(opened, few, targets, Choosing("uniform", engine=Late()))
    assert "\n" not in str(raised.value)
