"""A whole case, run again from its reproduce.json: nothing may differ, and the merge must have the same bytes.

    python tests/benchmarks/reproduction.py [--miniature] [--folder DIR]

Without --miniature it is a trio that is trained in seconds. Prints what was compared, and ends with code 1 where
something differs, or where another version of the adapted model goes unnoticed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tiny_trio import make_trio, write_prompts

from vlsurgery.surgery.writer.checksums import listed_sums


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The program with these words, in a folder; how long it took is printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "vlsurgery.cli.main", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    print(f"  {' '.join(words[:2])}: code {done.returncode}, {time.perf_counter() - began:.0f} s", flush=True)
    return done


def first_run(folder: Path, miniature: bool) -> None:
    """A case in the folder, from diff to evaluation."""
    if miniature:
        commands = [["demo"]]
    else:
        asked = write_prompts(folder)
        commands = [["diff", *make_trio(folder), "--level", "norms"], ["merge", "--auto", *asked]]
    for words in commands:
        done = run(folder, *words)
        if done.returncode:
            sys.exit(done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--miniature", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/bench/reproduction"))
    asked = parser.parse_args()
    folder = asked.folder.absolute() / ("miniature" if asked.miniature else "tiny")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first_run(folder, asked.miniature)
    again = run(folder, "reproduce", "case/reproduce.json", "--case", "again", "--json")
    print(json.loads(again.stdout)["verdict"])
    ours, theirs = (listed_sums(folder / case / "merged") for case in ("case", "again"))
    same = sum(ours[name] == theirs.get(name) for name in ours)
    print(f"the merge: {same} of {len(ours)} files have the same bytes")
    roles = json.loads((folder / "case" / "case.json").read_text())["checkpoints"]
    base, adapted, *others = (ref["path"] for ref in roles.values())
    swapped = run(folder, "reproduce", "case", *(others[:1] or [base]), adapted, *others, "--case", "swapped")
    print(f"another checkpoint in place of the base: {swapped.stderr.strip().splitlines()[-1][:100]}")
    sys.exit(bool(again.returncode or same != len(ours) or swapped.returncode != 2))


if __name__ == "__main__":
    main()
