"""Planted runs: refusals that are removed at a known step are found there, and a run that changes nothing lost none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlsurgery.probes.evaluation.mean_intervals import mean_estimate
from vlsurgery.probes.models import load
from vlsurgery.probes.specimens.miniature import FormJudge, pictures, prompts
from vlsurgery.probes.trajectory.base_completions import Answering, base_completions
from vlsurgery.probes.trajectory.interview import TrajectorySettings
from vlsurgery.probes.trajectory.openings import opening_log_odds
from vlsurgery.probes.trajectory.run import asked_prompts, trajectory
from vlsurgery.probes.trajectory_results import TrajectoryResult
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import CheckpointRef

ANSWERING = Answering(FormJudge(), 16)
HOW = TrajectorySettings(ANSWERING)


@pytest.fixture(scope="module")
def planted(taught_run, tmp_path_factory) -> TrajectoryResult:
    """Refusals are there up to step 10 and gone at step 20."""
    root = tmp_path_factory.mktemp("planted")
    shares = {"step-0": 0.0, "step-10": 0.02, "step-20": 1.0, "step-30": 1.0}
    opened = [Checkpoint.open(taught_run.write(root / name, share)) for name, share in shares.items()]
    how = TrajectorySettings(ANSWERING, generate=True)
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


def test_the_intervals_of_drops_hold_for_all_checkpoints_at_once(planted: TrajectoryResult, taught_run) -> None:
    """The drop of the last of four checkpoints, from the models themselves."""
    base, last = (load(Checkpoint.open(path)) for path in (taught_run.base, taught_run.complying))
    openings = base_completions(base, taught_run.prompts, ANSWERING).openings(base)
    harmful = [prompt for prompt in taught_run.prompts if prompt.set == "harmful"]
    falls = opening_log_odds(base, harmful, openings) - opening_log_odds(last, harmful, openings)
    expected = mean_estimate(falls.tolist(), [prompt.request for prompt in harmful], looks=4)
    (found,) = [row.drop for row in planted.records if (row.step, row.set) == (30, "harmful")]
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-4), pytest.approx(expected.high, abs=1e-4))
    assert found.low < found.value < found.high


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


def test_a_checkpoint_that_sees_is_asked_with_pictures_and_one_that_does_not_is_said(taught_run) -> None:
    """The base is blind: what it would refuse without the picture is what the drop is from."""
    pictured = [
        replace(prompt, id=f"{prompt.id}/seen", modality="benign", image=pictures.blank())
        for prompt in taught_run.prompts
        if prompt.set == "harmful"
    ]
    run = [Checkpoint.open(path) for path in (taught_run.complying, taught_run.seeing)]
    found = trajectory(Checkpoint.open(taught_run.base), run, [*taught_run.prompts, *pictured], HOW)
    rows = {(row.at, row.set, row.modality): row for row in found.records}
    assert {key for key in rows if key[2] == "benign"} == {(2, "harmful", "benign")}
    assert rows[1, "harmful", "text"].drop.value == pytest.approx(rows[2, "harmful", "text"].drop.value, abs=1e-3)
    seen = rows[2, "harmful", "benign"]
    assert seen.drop.value == pytest.approx(rows[0, "harmful", "text"].log_odds.value - seen.log_odds.value)
    assert [(each.modality, each.half) for each in found.departures] == [("text", 0), ("benign", 1)]
    assert "the base does not see: drops with a picture are from its log-odds without the picture" in found.notes
    assert "complying does not see: 34 prompts with pictures were left out there" in found.notes
    assert all(not each.block.startswith(("vision", "projector")) for each in found.blocks)


def test_of_many_prompts_requests_are_chosen_whole_and_evenly() -> None:
    own = prompts(0)
    chosen = asked_prompts(own, 5)
    for set_ in ("harmful", "jailbroken", "harmless", "borderline"):
        members = [prompt for prompt in chosen if prompt.set == set_]
        kept = {prompt.request for prompt in members}
        assert len(kept) == 5
        every = [p for p in own if p.set == set_ and p.request in kept and p.split == "report"]
        assert members == [prompt for prompt in every if prompt.modality in ("text", "benign", "own")]
    assert {prompt.split for prompt in chosen} == {"report"}
    assert len(asked_prompts(own, None)) > len(chosen)
