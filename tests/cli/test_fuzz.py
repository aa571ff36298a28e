"""Files from elsewhere with anything in them; tests/benchmarks/fuzz.py does the same more often."""

import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_every_kind_of_file_is_read_right_or_refused_in_one_line() -> None:
    """A process of its own, for its memory is bounded, and what it opens is watched."""
    command = [sys.executable, "-W", "ignore", str(FUZZ), "--examples", "10", "--seconds", "0.5"]
    places = os.pathsep.join(filter(None, [str(FUZZ.parent), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=settings, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
