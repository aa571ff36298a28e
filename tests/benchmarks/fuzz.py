"""Files from elsewhere with anything in them, kind by kind: each is read right, or refused in one short line.

Run it as `python tests/benchmarks/fuzz.py --examples 5000`. Of each kind a good file is damaged again and again
(fuzz_damage.py), and what reads it is held to the law (fuzz_law.py). Prints kind x examples x faults, and of each fault
the file that shows it. Ends with 1 where there is one.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MAX_SHOWN: Final = 600


class TimeUp(KeyboardInterrupt):  # which hypothesis lets through at once
    """The time that a kind has is over."""


@contextmanager
def home() -> Iterator[Path]:
    """A folder for everything, which is the working directory and holds the caches too; nothing is fetched."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "HF_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        os.chdir(folder)
        yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="these alone, by the start of their names")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each kind, at most")
    asked = parser.parse_args()
    with home() as folder:
        return attack(folder, asked)


def attack(folder: Path, asked: argparse.Namespace) -> int:
    from fuzz_kinds import all_kinds
    from fuzz_law import Watch, bound_memory

    watch = Watch(folder)
    kinds = [kind for kind in all_kinds() if not asked.kinds or kind.name.startswith(tuple(asked.kinds))]
    for number, kind in enumerate(kinds):
        kind.read(kind.lay_out(folder / str(number)))  # the good one is read, and all is imported that reads it
    bound_memory()
    print(f"{'kind':26} {'examples':>8} {'read':>6} {'refused':>8} {'seconds':>8} {'faults':>7}", flush=True)
    total = 0
    for number, kind in enumerate(kinds):
        faults = one_kind(folder / str(number), kind, watch, asked)
        total += len(faults)
        for fault in faults:
            print(f"    {fault}", flush=True)
    print(f"{total} faults", flush=True)
    return 1 if total else 0


def one_kind(folder: Path, kind: "Kind", watch: "Watch", asked: argparse.Namespace) -> Sequence[str]:  # noqa: F821
    """Damage and read files of one kind, print its row, and return a line or more of each fault."""
    from fuzz_damage import put
    from fuzz_law import hold
    from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

    counts, began = {"read": 0, "refused": 0}, time.perf_counter()

    @seed(asked.seed)
    @settings(
        max_examples=max(1, int(asked.examples * kind.share)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=(Phase.generate,),  # a fault that takes long would be shrunk for hours
    )
    @given(st.data())
    def reads(data: st.DataObject) -> None:
        if time.perf_counter() - began > asked.seconds:
            raise TimeUp
        file = folder / kind.file
        put(data, file, kind.content, kind.ways)
        refused = hold(watch, lambda: (kind.read(file), True)[1]) is None
        counts["refused" if refused else "read"] += 1

    faults: list[str] = []
    try:
        reads()
    except BaseExceptionGroup as group:
        faults = [shown(folder / kind.file, error) for error in group.exceptions]
    except TimeUp:
        pass  # the row says how many were read
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- whatever it is, it is a fault of this kind
        faults = [shown(folder / kind.file, error)]
    took = time.perf_counter() - began
    row = (
        f"{kind.name:26} {sum(counts.values()):8} {counts['read']:6} {counts['refused']:8} {took:8.1f} {len(faults):7}"
    )
    print(row, flush=True)
    return faults


def shown(file: Path, error: BaseException) -> str:
    """A fault with the place in our code, and the file that shows it."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "fuzz" not in frame.filename]
    ours = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in places
        if str(Path(__file__).parents[2]) in str(Path(frame.filename).resolve()) and ".venv" not in frame.filename
    ]
    content = file.read_bytes()[:MAX_SHOWN] if file.is_file() and not file.is_symlink() else "(no plain file)"
    return f"{type(error).__name__}: {str(error)[:MAX_SHOWN]} at {' '.join(ours[-4:])}\n        {content!r}"


if __name__ == "__main__":
    sys.exit(main())
