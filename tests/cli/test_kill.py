"""SIGKILL at five random moments of every step, and a full disk; `tests/benchmarks/kills.py` does it more often."""

import os
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).parents[1] / "benchmarks" / "kills.py"
STEPS = ("diff", "probe", "coefficients", "merge", "evaluate", "report")


def test_what_was_killed_or_found_no_room_can_be_read_and_finishes_when_given_again() -> None:
    """A process of its own, for it forks: that must not happen where gradients were taken or threads run."""
    many = ["--kills", "5", "--full", "1", "--row", "6", "--things", "6"]
    command = [sys.executable, str(KILLS), *many, "--steps", *STEPS]
    places = os.pathsep.join(filter(None, [str(KILLS.parent), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
