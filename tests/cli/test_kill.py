"""SIGKILL at three random moments each of diff and merge; tests/benchmarks/kills.py does the same more often."""

import runpy
from pathlib import Path

KILLS = Path(__file__).parents[1] / "benchmarks" / "kills.py"


def test_a_killed_command_leaves_what_can_be_read_and_finishes_when_given_again(tmp_path: Path) -> None:
    assert runpy.run_path(str(KILLS))["attack"](kills=3, seed=0, folder=tmp_path)
