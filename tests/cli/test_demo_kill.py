"""`vlsurgery demo --real` killed in training, in probe and in merge, at small scale, goes on to the same end."""

import os
import subprocess
import sys
from pathlib import Path

DEMO_KILLS = Path(__file__).parents[1] / "benchmarks" / "demo_kills.py"


def test_killed_at_three_moments_the_demo_goes_on_and_does_nothing_again_that_was_whole() -> None:
    """A process of its own, for it forks: that must not happen where gradients were taken or threads run."""
    places = os.pathsep.join(filter(None, [str(DEMO_KILLS.parent), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, str(DEMO_KILLS)], capture_output=True, text=True, check=False, env=settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [line.split(":")[0] for line in ran.stdout.splitlines() if " after " in line] == [
        "killed in training", "killed in probe", "killed in merge", "ended",
    ]  # fmt: skip
