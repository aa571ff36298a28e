"""What a user of a wheel gets in a bare environment: `--version`, `--help`, `demo --plan`, the whole demo, a dry push.

    python tests/benchmarks/bare_wheel.py [--keep DIR]

Builds a source distribution of this checkout, a wheel of that, and installs the wheel with what it depends on into a
new environment, with constraints.txt and without the repository; then runs the program from an empty folder. Prints a
line a step: its seconds, and what it said last. Ends with 1 where a step fails. --keep: install there, and leave it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOUSE = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; out = sys.argv[1]; print(build_meta.build_sdist(out))"


def step(name: str, folder: Path, *command: str | Path) -> None:
    """Run one command from `folder` and say how it went; ends the benchmark where it fails."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [""]
    print(
        f"{name:24} {time.perf_counter() - began:7.1f} s  {'ok' if done.returncode == 0 else 'FAILED'}  {said[-1]}",
        flush=True,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    keep: Path | None = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        home, built, empty = keep or root / "environment", root / "built", root / "empty"
        built.mkdir()
        empty.mkdir()
        python, program = home / "bin" / "python", home / "bin" / "vlsurgery"
        step("source distribution", HOUSE, sys.executable, "-c", BUILD, built)
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", built)
        step("wheel", built, *pip, next(built.glob("*.tar.gz")))
        step("environment", root, sys.executable, "-m", "venv", home)
        install = (python, "-m", "pip", "install", "--quiet", "-c", HOUSE / "constraints.txt")
        step("install", empty, *install, next(built.glob("*.whl")))
        step("--version", empty, program, "--version")
        step("--help", empty, program, "--help")
        step("demo --plan", empty, program, "demo", "--plan")
        step("demo", empty, program, "demo")
        step("push --dry-run", empty, program, "push", "case/merged", "org/name", "--dry-run")
        step("report", empty, python, "-c", "import os; print(os.path.getsize('case/report.html'), 'bytes of report')")


if __name__ == "__main__":
    main()
