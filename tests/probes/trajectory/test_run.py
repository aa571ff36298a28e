"""Planted runs: refusals that are removed at a known step are found there, and a run that changes nothing lost none."""

import json
from pathlib import Path

import pytest
import torch

from vlsurgery.probes.specimens.miniature import FormJudge
from vlsurgery.probes.trajectory.run import TrajectorySettings, trajectory
from vlsurgery.probes.trajectory_results import TrajectoryResult
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import CheckpointRef

HOW = TrajectorySettings(judge=FormJudge(), tokens=16)


@pytest.fixture(scope="module")
def planted(taught_run, tmp_path_factory) -> TrajectoryResult:
    """Refusals are there up to step 10 and gone at step 20."""
    root = tmp_path_factory.mktemp("planted")
    shares = {"step-0": 0.0, "step-10": 0.02, "step-20": 1.0, "step-30": 1.0}
    opened = [Checkpoint.open(taught_run.write(root / name, share)) for name, share in shares.items()]
    how = TrajectorySettings(judge=FormJudge(), tokens=16, generate=True)
    return trajectory(Checkpoint.open(taught_run.base), opened, taught_run.prompts, how)


def test_the_planted_step_is_found(planted: TrajectoryResult) -> None:
    (found,) = planted.departures
    assert (found.half_after, found.half, found.lasting) == (10, 20, True)
    assert found.fell in (10, 20)
    assert "half of the drop was there between steps 10 and 20" in planted.verdict
    harmful = {row.step: row for row in planted.records if row.set == "harmful"}
    assert harmful[0].drop.value == harmful[0].drop.low == harmful[0].drop.high == 0.0
    assert harmful[None].opens_refusing.rate == harmful[10].opens_refusing.rate == 1.0
    assert harmful[20].opens_refusing.rate == harmful[30].opens_refusing.rate == 0.0
    assert harmful[20].drop.value == pytest.approx(harmful[None].log_odds.value - harmful[20].log_odds.value)
    assert all(row.opens_refusing.rate == 0.0 for row in planted.records if row.set == "harmless")


def test_what_is_generated_agrees_with_the_odds(planted: TrajectoryResult) -> None:
    for row in planted.records:
        assert row.refused is not None
        assert row.refused.rate == row.opens_refusing.rate
        assert row.refused.rate + row.complied.rate + row.neither.rate == pytest.approx(1.0)


def test_blocks_moved_by_the_planted_share(planted: TrajectoryResult) -> None:
    """The change is linear in the share, so each block's share of its final change is the planted one."""
    for at, share in ((1, 0.0), (2, 0.02), (3, 1.0), (4, 1.0)):
        shares = [each.share for each in planted.blocks if each.at == at]
        assert len(shares) == 7  # two layers of two, embed, norm, head
        assert shares == pytest.approx([share] * 7, abs=2e-5)


def test_relative_change_is_that_of_the_weights(planted: TrajectoryResult, taught_run) -> None:
    base, last = (Checkpoint.open(path) for path in (taught_run.base, taught_run.complying))
    names = [name for name in base if ".layers.1.mlp." in name or ".layers.1.post_attention" in name]
    before = torch.cat([base[name].load().flatten() for name in names])
    after = torch.cat([last[name].load().flatten() for name in names])
    found = next(each for each in planted.blocks if (each.at, each.block) == (4, "1.mlp"))
    assert found.relative == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)


def test_a_run_that_changes_nothing_lost_no_refusals(taught_run, tmp_path: Path) -> None:
    same = [Checkpoint.open(taught_run.write(tmp_path / f"step-{step}", 0.0)) for step in (1, 2)]
    found = trajectory(Checkpoint.open(taught_run.base), same, taught_run.prompts, HOW)
    assert "did not leave" in found.verdict
    assert found.departures[0].fell is None
    assert {each.relative for each in found.blocks} == {0.0}
    assert all(row.refused is None for row in found.records if row.at)


def test_the_json_is_read_back(planted: TrajectoryResult, tmp_path: Path) -> None:
    planted.save(tmp_path / "trajectory.json")
    written = json.loads((tmp_path / "trajectory.json").read_text())
    assert written["schema"] == "vlsurgery/trajectory/1"
    assert isinstance(planted.checkpoints["base"], CheckpointRef)
    assert set(written["checkpoints"]) == {"base", "checkpoint:1", "checkpoint:2", "checkpoint:3", "checkpoint:4"}
    assert TrajectoryResult.load(tmp_path / "trajectory.json") == planted


def test_a_base_that_refuses_nothing_is_said_in_one_line(taught_run) -> None:
    complying = Checkpoint.open(taught_run.complying)
    with pytest.raises(SurgeryError, match="of the base's 0 refusals"):
        trajectory(complying, [complying], taught_run.prompts, HOW)
    harmless = [prompt for prompt in taught_run.prompts if prompt.set == "harmless"]
    with pytest.raises(SurgeryError, match="no harmful prompt to ask"):
        trajectory(complying, [complying], harmless, HOW)
    with pytest.raises(SurgeryError, match="give the checkpoints"):
        trajectory(complying, [], taught_run.prompts, HOW)
