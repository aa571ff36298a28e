"""Whole processes, timed: seconds and peak resident memory, as ratios against a rival in the same run."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Run:
    """seconds: of the whole process. peak: its largest resident memory (`ru_maxrss`), in MB."""

    seconds: float
    peak: float


def run(command: Sequence[str | Path]) -> Run:
    """Run a command to its end. What it says is shown where it fails."""
    start = time.monotonic()
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{said.decode(errors='replace')}")
    return Run(time.monotonic() - start, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))


def middle(runs: Sequence[Run]) -> Run:
    """The median of the seconds, the largest of the peaks."""
    return Run(median(each.seconds for each in runs), max(each.peak for each in runs))


def vlsurgery(*arguments: str | Path) -> list[str | Path]:
    """The command line of this very tree, whatever is installed."""
    return [sys.executable, "-c", "from vlsurgery.cli.main import run; run()", *arguments]
