"""A whole case by the commands, with `--ray local:2` and without: every file is to be the same.

    python tests/benchmarks/ray_case.py [--folder DIR]

The miniature, which is trained where the cache lacks it: `diff`, `probe` and `merge --auto`. Times and dates are left
out of what is compared. Ends with 1 where a file differs, or something of the workers is left in the case.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from timing import vlsurgery

from vlsurgery.probes.specimens.miniature.build import build

WAYS = {"alone": (), "divided": ("--ray", "local:2")}
RESULTS = ("diff.json", "probe.json", "targets.json", "tradeoff.json", "behaviour.json")
FILES = (
    "directions.safetensors", "gradients.safetensors", "recipe.yaml", "completions.jsonl", "merged/SHA256SUMS",
    "merged/README.md",
)  # fmt: skip
TIMES = ("created", "seconds")


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/bench/ray_case"))
    folder: Path = parser.parse_args().folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    specimen = build()
    named = [str(each) for each in (specimen.base, specimen.adapted, specimen.safety)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for way, more in WAYS.items():
        for words in (["diff", *named], ["probe"], ["merge", "--auto"]):
            began = time.perf_counter()
            command = [*map(str, vlsurgery(*words, "--case", way, *more))]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            print(f"{way}: {words[0]}, {time.perf_counter() - began:.0f} s", flush=True)
    differing = []
    for name in RESULTS:
        one, other = (timeless(json.loads((folder / way / name).read_text())) for way in WAYS)
        differing += [] if one == other else [name]
    for name in FILES:
        one, other = ((folder / way / name).read_bytes() for way in WAYS)
        differing += [] if one == other else [name]
    left = [path.name for path in (folder / "divided").iterdir() if path.name.startswith(".")]
    count = len(RESULTS) + len(FILES)
    print(f"files: {count - len(differing)} of {count} equal, differing: {differing}, left in the case: {left}")
    sys.exit(bool(differing or left))


if __name__ == "__main__":
    main()
