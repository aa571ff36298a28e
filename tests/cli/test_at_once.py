"""Signals, closed pipes and several commands at once: each run ends well or in one line, and the case goes on."""

import os
import subprocess
import sys
from pathlib import Path

AT_ONCE = Path(__file__).parents[1] / "benchmarks" / "at_once.py"


def test_whatever_happens_beside_a_command_the_case_can_be_read_and_goes_on() -> None:
    """A process of its own, for it forks: that must not happen where gradients were taken or threads run."""
    places = os.pathsep.join(filter(None, [str(AT_ONCE.parent), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    trials = ["signals", "closed_pipes", "two_commands", "changed_inputs"]
    ran = subprocess.run(
        [sys.executable, str(AT_ONCE), *trials], capture_output=True, text=True, check=False, env=settings
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
