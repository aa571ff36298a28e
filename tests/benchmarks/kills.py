"""Whether a case survives being killed at any moment of any step, and full disks.

Run it as `python tests/benchmarks/kills.py`. A tiny trio is trained, and a whole case made of it once: what each step
finds, and what it leaves, are the measure. Then each step is begun again and again from what it found, in a forked
process, and killed: after a random time of the processor, or just before a random change of a file. Both are counted
within the process, so that they hit the same places on a busy machine. What is there must be readable, the same command
must then end with 0, and every file must hold the bytes of the uninterrupted run, less times of day. Other runs find a
full disk: no file can grow beyond a random size (what is written is cut off there), or none can be made any more. They
must end with one line that names a file, and then the same is asked.
"""

import argparse
import errno
import importlib
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from tiny_trio import ROLES, THINGS, make_trio, write_prompts

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.history import history_rows
from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.results import DiffResult
from vlsurgery.surgery.runtime.json_lines import whole_lines

RESULTS: Final = (DiffResult, ProbeResult, TradeoffResult, BehaviourResult)
# When, how long, and how often: a run that is killed when it has logged its look at the prompts has looked.
TIMES: Final = ("created", "finished", "surroundings", "time", "seconds", "looks")
RESUMED: Final = re.compile(r"completions were there already")
LOG: Final = "said.txt"
KILL, FULL = "kill -9", "full disk"
KILLED: Final = (-signal.SIGKILL, -signal.SIGPROF)
WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# What commands import, so that forked processes find it there: they are attacked at work, and not while they import.
IMPORTED: Final = (
    "numba",
    "plotly.graph_objects",
    "rich.table",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.pipeline",
)


@dataclass(frozen=True)
class Step:
    """A command, by its words. after: the step whose case it goes on from, None for an empty folder. until: the file
    with which the part ends that is attacked; None for all of it."""

    name: str
    words: list[str]
    after: str | None
    until: str | None = None


@dataclass
class Run:
    """How a forked command ended. code: its exit status, or minus the signal. said: what it printed."""

    code: int
    said: str
    seconds: float


@dataclass(frozen=True)
class Attack:
    """What happens to a run. prepare: called in its process before the command."""

    kind: str
    what: str
    prepare: Callable[[], None]

    def struck(self, run: Run) -> bool:
        return run.code in KILLED if self.kind == KILL else run.code == 2


@dataclass
class Span:
    """How long a step takes, uninterrupted: seconds of the processor, changes of files. largest: bytes of the largest
    file that it writes."""

    seconds: float
    changes: int
    largest: int


@dataclass
class Tally:
    """What came of one step's attacks of one kind. settled: how many runs were given again until they ended."""

    tried: int = 0
    struck: int = 0
    readable: int = 0
    settled: int = 0
    rerun: int = 0
    same: int = 0
    faults: list[str] = field(default_factory=list)


def steps(folder: Path, things: int) -> list[Step]:
    """The steps of a case, each after one before it; and the whole of them in one command."""
    _, adapted, safety = trio = [str(folder / role) for role in ROLES]
    case, prompts = ["--case", "case", "--quiet"], write_prompts(folder, things)
    auto = ["merge", "--auto", "--toward", "base", *case]
    return [
        Step("diff", ["diff", *trio, *case], None),
        Step("probe", ["probe", *prompts, *case], "diff"),
        Step("merge", ["merge", "--method", "linear", adapted, safety, "-o", "merged", "--quiet"], "diff"),
        Step("evaluate", ["evaluate", *case], "probe"),
        Step("coefficients", auto, "evaluate", "case/recipe.yaml"),
        Step("report", ["report", *case], "evaluate"),
        Step("auto", [*auto, *prompts], "diff"),
    ]


def fork(words: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin a command in a forked process, which has torch and transformers imported already. Its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(folder)
        out = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["vlsurgery", *words]
        prepare()
        from vlsurgery.cli.main import run as program

        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 -- the child must never come back into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int, folder: Path, began: float) -> Run:
    _, status = os.waitpid(child, 0)
    said = (folder / LOG).read_text(errors="replace")
    return Run(os.waitstatus_to_exitcode(status), said, time.perf_counter() - began)


def whole(words: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> Run:
    began = time.perf_counter()
    return ended(fork(words, folder, prepare), folder, began)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of what is there now."""
    found = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        found[str(path)] = status.st_size, status.st_mtime_ns
    found.pop(str(folder / LOG), None)
    return found


def on_change(act: Callable[[str], None]) -> None:
    """Call `act` with the name, just before this process makes, opens for writing, renames or removes a file or folder
    that lies below the working directory."""
    below = os.getcwd() + os.sep

    def hook(event: str, given: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if not (changes or (event == "open" and given[2] & WRITING)) or not isinstance(given[0], str | os.PathLike):
            return
        path = os.path.abspath(given[0])
        if path.startswith(below) and path != below + LOG:
            act(path)

    sys.addaudithook(hook)


def kill_after(seconds: float) -> None:
    """End this process when it has used so much of the processor. Nobody handles that signal: it ends a process as
    SIGKILL does, without a word."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def kill_before(change: int) -> None:
    """Kill this process just before it changes a file for the so many-th time."""
    left = [change]

    def act(path: str) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    on_change(act)


def no_room_from(change: int) -> None:
    """Refuse every change of a file from the so many-th on, as a disk does that has no room for one more name.
    Removing is free."""
    left = [change]

    def act(path: str) -> None:
        left[0] -= 1
        if left[0] <= 0 and not os.path.exists(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    on_change(act)


def cap(most: int) -> None:
    """Let no file grow beyond a size: writes are cut off there, and then fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def kills(span: Span, number: int, chance: random.Random) -> Iterator[Attack]:
    """So many, one kind after the other."""
    for turn in range(number):
        if turn % 2:
            change = chance.randint(1, span.changes)
            yield Attack(KILL, f"killed before change {change}", lambda change=change: kill_before(change))
        else:
            moment = chance.uniform(0.001, span.seconds)
            yield Attack(KILL, f"killed after {moment:.3f} s", lambda moment=moment: kill_after(moment))


def full_disks(span: Span, number: int, chance: random.Random) -> Iterator[Attack]:
    """So many, one kind after the other."""
    for turn in range(number):
        if turn % 2:
            change = chance.randint(1, span.changes)
            yield Attack(FULL, f"no room from change {change} on", lambda change=change: no_room_from(change))
        else:
            most = int(span.largest ** chance.uniform(0.3, 1)) - 1
            yield Attack(FULL, f"files of {most} bytes at most", lambda most=most: cap(most))


def timeless(value: Any) -> Any:
    """A result without times of day and numbers of looks, and without the notes of a run that went on from another."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [timeless(each) for each in value if not (isinstance(each, str) and RESUMED.search(each))]
    return value


def digests(folder: Path) -> dict[str, str]:
    """The files of a run by what is in them. Those that say when and how often (case.json, history.jsonl), and the
    results that say whether a run went on, are compared without that; the page repeats them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name == LOG:
            continue
        if name == "case/case.json":
            found[name] = str(sorted(json.loads(path.read_text())["steps"]))
        elif name == "case/history.jsonl":
            found[name] = str({json.loads(line)["step"] for line in whole_lines(path.read_bytes())})
        elif name.endswith(".json") and name.count("/") == 1:
            found[name] = json.dumps(timeless(json.loads(path.read_text())), sort_keys=True)
        elif name == "case/report.html":
            found[name] = "a page" if path.read_text().rstrip().endswith("</html>") else "half a page"
        else:
            found[name] = file_digest(path)
    return found


def unreadable(folder: Path) -> str:
    """What can't be read of what a broken run has left; nothing where all can."""
    try:
        if (folder / "case" / "case.json").exists():
            case = Case.open(folder / "case")
            for kind in RESULTS:
                case.result(kind)
            if (history := folder / "case" / "history.jsonl").exists():
                history_rows(history)
        for merged in (folder / "merged", folder / "case" / "merged"):
            if merged.exists():
                Checkpoint.open(merged)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what the table tells
        return f"{type(error).__name__}: {error}"
    return ""


def says_why(run: Run) -> bool:
    """Whether a run ended well, or said in a last line which file could not be written."""
    lines = run.said.strip().splitlines()
    if run.code == 0:
        return True
    told = run.code == 2 and "Traceback" not in run.said and lines[-1].startswith("error: ")
    return told and re.search(r"\b(case|merged)(/|\b)", lines[-1]) is not None


class Arena:
    """Whole runs of every step, and attacks on each. `folder` holds the trio, and a folder a step of what it left."""

    def __init__(self, folder: Path, things: int) -> None:
        for name in IMPORTED:
            importlib.import_module(name)
        self.folder = folder
        self.steps = steps(folder, things)
        self.here = folder / "here"
        self.expected: dict[str, dict[str, str]] = {}
        self.spans: dict[str, Span] = {}

    def start(self, step: Step) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        if step.after is None:
            self.here.mkdir()
        else:
            shutil.copytree(self.folder / f"after-{step.after}", self.here)

    def measure(self, wanted: Collection[str]) -> None:
        """Run every step whole that is attacked, and those before it."""
        for step in self.steps:
            if step.name not in wanted:
                continue
            self.start(step)
            before = files(self.here)
            # What the forked process counts: changes, and seconds of the processor when `until` was changed last.
            counted = np.frombuffer(mmap.mmap(-1, 24), np.float64)
            done = whole(step.words, self.here, partial(count, counted, step.until))
            if done.code:
                raise SystemExit(f"{step.name}, not killed, ended with {done.code}: {done.said}")
            self.expected[step.name] = digests(self.here)
            sizes = [size for name, (size, when) in files(self.here).items() if before.get(name) != (size, when)]
            self.spans[step.name] = span = Span(float(counted[0]), int(counted[1]), max(sizes))
            shutil.copytree(self.here, self.folder / f"after-{step.name}")
            print(f"{step.name}: {done.seconds:.1f} s, attacked for {span.seconds:.1f} s of the processor", flush=True)

    def settle(self, step: Step, tally: Tally, what: str) -> None:
        """After attacks: give the command again, compare."""
        again = whole(step.words, self.here)
        tally.settled += 1
        tally.rerun += again.code == 0
        found, expected = digests(self.here), self.expected[step.name]
        tally.same += found == expected
        differing = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
        for wrong in (again.code and again.said[-500:], differing and f"not the same: {differing}"):
            if wrong:
                tally.faults.append(f"{step.name}, {what}: {wrong}")

    def attack(self, step: Step, attacks: Sequence[Attack], row: int) -> dict[str, Tally]:
        """The tally of every kind. row: how many attacks follow on each other before the command may finish."""
        tallies = {KILL: Tally(), FULL: Tally()}
        fresh = True
        for turn, attack in enumerate(attacks, start=1):
            if fresh:
                self.start(step)
            tally = tallies[attack.kind]
            run = whole(step.words, self.here, attack.prepare)
            struck = attack.struck(run)
            tally.tried += 1
            tally.struck += struck
            fault = unreadable(self.here)
            tally.readable += not fault
            if fault:
                tally.faults.append(f"{step.name}, {attack.what}: {fault}")
            if not (struck if attack.kind == KILL else says_why(run)) and run.code:
                tally.faults.append(f"{step.name}, {attack.what}: {run.code}: {run.said[-600:]}")
            fresh = not struck or turn % row == 0 or turn == len(attacks)
            if fresh:
                self.settle(step, tally, attack.what)
        return tallies


def count(counted: Any, until: str | None) -> None:
    """Count into shared memory: seconds of the processor and changes of files so far, at every change. With `until`,
    counting ends when that file is there."""
    began = time.process_time()

    def act(path: str) -> None:
        if until is None or not os.path.exists(until):
            counted[0], counted[1] = time.process_time() - began, counted[1] + 1

    on_change(act)


def show(name: str, attack: str, tally: Tally) -> None:
    rerun, same = f"{tally.rerun}/{tally.settled}", f"{tally.same}/{tally.settled}"
    print(
        f"{name:<14}{attack:<11}{tally.tried:>5}{tally.struck:>8}{tally.readable:>10}{rerun:>10}{same:>8}", flush=True
    )
    for fault in tally.faults:
        print(f"  {fault}", flush=True)


def attack(plan: argparse.Namespace, folder: Path) -> bool:
    """So many kills and full disks of each named step; whether every one of them was survived."""
    print(f"seed {plan.seed}")
    trained = os.fork()
    if not trained:
        # In a process of its own: where gradients were taken, a fork can take none.
        make_trio(folder, plan.things)
        os._exit(0)
    os.waitpid(trained, 0)
    arena, chance, well = Arena(folder, plan.things), random.Random(plan.seed), True
    wanted = set(plan.steps or [step.name for step in arena.steps])
    arena.measure({*wanted, *(step.after for step in arena.steps if step.name in wanted), "diff"})
    print(f"{'step':<14}{'attack':<11}{'tried':>5}{'struck':>8}{'readable':>10}{'rerun ok':>10}{'same':>8}")
    for step in arena.steps:
        if step.name not in wanted:
            continue
        span = arena.spans[step.name]
        attacks = [*kills(span, plan.kills, chance), *full_disks(span, plan.full, chance)]
        for kind, tally in arena.attack(step, attacks, plan.row).items():
            if tally.tried:
                show(step.name, kind, tally)
            well = well and not tally.faults
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each step")
    parser.add_argument("--full", type=int, default=10, help="full disks of each step")
    parser.add_argument("--row", type=int, default=1, help="attacks that follow on each other before a run may finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--things", type=int, default=len(THINGS), help="how many things prompts are about")
    parser.add_argument("--steps", nargs="*", default=[], help="these alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        well = attack(options, Path(name))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
