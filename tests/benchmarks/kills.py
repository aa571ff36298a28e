"""Whether a case survives being killed at any moment of any step, and full disks.

Run it as `python tests/benchmarks/kills.py`. A tiny trio is trained, and a whole case made of it once: what each step
finds, and what it leaves, are the measure. Then each step is begun again and again from what it found, in a forked
process, and ended by SIGKILL: at a random moment, or when a file of the case has just changed for a random time. What
is there must be readable, the same command must then end with 0, and every file must hold the bytes of the
uninterrupted run, less times of day. Other runs find that no file can grow beyond a random size (what is written is cut
off there, as on a full disk): they must end well or with one line, and then the same is asked.
"""

import argparse
import json
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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tiny_trio import ROLES, make_trio, write_prompts

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.history import history_rows
from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.results import DiffResult
from vlsurgery.surgery.runtime.json_lines import whole_lines

RESULTS: Final = (DiffResult, ProbeResult, TradeoffResult, BehaviourResult)
TIMES: Final = ("created", "finished", "time", "seconds")
RESUMED: Final = re.compile(r"completions were there already")
LOG: Final = "said.txt"
POLL: Final = 0.002


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


@dataclass
class Tally:
    """What came of one step's attacks."""

    tried: int = 0
    struck: int = 0
    readable: int = 0
    rerun: int = 0
    same: int = 0
    faults: list[str] = field(default_factory=list)


def steps(folder: Path) -> list[Step]:
    """The steps of a case, each after one before it; and the whole of them in one command."""
    _, adapted, safety = trio = [str(folder / role) for role in ROLES]
    case, prompts = ["--case", "case", "--quiet"], write_prompts(folder)
    auto = ["merge", "--auto", "--toward", "base", *case]
    return [
        Step("diff", ["diff", *trio, *case], None),
        Step("probe", ["probe", *prompts, *case], "diff"),
        Step("coefficients", auto, "probe", "case/recipe.yaml"),
        Step("merge", ["merge", "--method", "linear", adapted, safety, "-o", "merged", "--quiet"], "diff"),
        Step("evaluate", ["evaluate", *case], "probe"),
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


def kill(step: Step, folder: Path, moment: float, behind_change: bool) -> Run:
    """Run a step, and kill it after so many seconds, or as soon as a file changes after that."""
    began = time.perf_counter()
    child = fork(step.words, folder)
    while time.perf_counter() - began < moment and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(POLL)
    before = files(folder)
    while behind_change and files(folder) == before:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    os.kill(child, signal.SIGKILL)
    return ended(child, folder, began)


def timeless(value: Any) -> Any:
    """A result without times of day, and without the notes of a run that went on from what another had kept."""
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


def one_line(run: Run) -> bool:
    """Whether a run ended well, or said in a last line what hindered it."""
    lines = run.said.strip().splitlines()
    return run.code == 0 or (run.code == 2 and lines[-1].startswith("error: ") and "Traceback" not in run.said)


class Arena:
    """Whole runs of every step, and attacks on each. `folder` holds the trio, and a folder a step of what it left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps = steps(folder)
        self.here = folder / "here"
        self.expected: dict[str, dict[str, str]] = {}
        self.spans: dict[str, float] = {}

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
            began = time.time()
            done = whole(step.words, self.here)
            if done.code:
                raise SystemExit(f"{step.name}, not killed, ended with {done.code}: {done.said}")
            self.expected[step.name] = digests(self.here)
            end = None if step.until is None else (self.here / step.until).stat().st_mtime - began
            self.spans[step.name] = done.seconds if end is None else end
            shutil.copytree(self.here, self.folder / f"after-{step.name}")
            print(f"{step.name}: {done.seconds:.1f} s, attacked for {self.spans[step.name]:.1f} s", flush=True)

    def settle(self, step: Step, tally: Tally, what: str) -> None:
        """After an attack: read what is there, give the command again, compare."""
        tally.tried += 1
        fault = unreadable(self.here)
        tally.readable += not fault
        again = whole(step.words, self.here)
        tally.rerun += again.code == 0
        found, expected = digests(self.here), self.expected[step.name]
        tally.same += found == expected
        differing = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
        for wrong in (fault, again.code and again.said[-500:], differing and f"not the same: {differing}"):
            if wrong:
                tally.faults.append(f"{step.name}, {what}: {wrong}")

    def kills(self, step: Step, number: int, chance: random.Random, row: int) -> Tally:
        """row: how many kills follow on each other before the command may finish."""
        tally = Tally()
        for turn in range(number):
            if turn % row == 0:
                self.start(step)
            moment = chance.uniform(0, self.spans[step.name])
            run = kill(step, self.here, moment, behind_change=bool(turn % 2))
            tally.struck += run.code == -signal.SIGKILL
            what = f"killed after {moment:.3f} s" + (" and a change" if turn % 2 else "")
            if (turn + 1) % row == 0:
                self.settle(step, tally, what)
            elif fault := unreadable(self.here):
                tally.faults.append(f"{step.name}, {what}: {fault}")
        return tally

    def full(self, step: Step, number: int, chance: random.Random) -> Tally:
        """As `kills`, with files that can't grow beyond a size below that of the largest one that the step writes."""
        tally = Tally()
        largest = max(size for size, _ in files(self.folder / f"after-{step.name}").values())
        for turn in range(number):
            self.start(step)
            most = int(largest ** chance.uniform(0.3, 1))
            run = whole(step.words, self.here, lambda most=most: cap(most))
            tally.struck += run.code == 2
            if not one_line(run):
                tally.faults.append(f"{step.name}, files of {most} bytes at most: {run.code}: {run.said[-600:]}")
            self.settle(step, tally, f"files of {most} bytes at most (turn {turn})")
        return tally


def cap(most: int) -> None:
    """Let no file grow beyond a size: writes are cut off there, and then fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def show(name: str, attack: str, tally: Tally) -> None:
    print(
        f"{name:<14}{attack:<11}{tally.tried:>5}{tally.struck:>8}{tally.readable:>10}{tally.rerun:>10}{tally.same:>8}",
        flush=True,
    )
    for fault in tally.faults:
        print(f"  {fault}", flush=True)


def attack(plan: argparse.Namespace, folder: Path) -> bool:
    """So many kills and full disks of each named step; whether every one of them was survived."""
    print(f"seed {plan.seed}")
    trained = os.fork()
    if not trained:
        # In a process of its own: where gradients were taken, a fork can take none.
        make_trio(folder)
        os._exit(0)
    os.waitpid(trained, 0)
    arena, chance, well = Arena(folder), random.Random(plan.seed), True
    wanted = set(plan.steps or [step.name for step in arena.steps])
    arena.measure({*wanted, *(step.after for step in arena.steps if step.name in wanted), "diff"})
    print(f"{'step':<14}{'attack':<11}{'tried':>5}{'struck':>8}{'readable':>10}{'rerun ok':>10}{'same':>8}")
    for step in arena.steps:
        if step.name not in wanted:
            continue
        for kind, tally in (
            ("kill -9", arena.kills(step, plan.kills, chance, plan.row)),
            ("full disk", arena.full(step, plan.full, chance)),
        ):
            show(step.name, kind, tally)
            well = well and not tally.faults
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each step")
    parser.add_argument("--full", type=int, default=10, help="full disks of each step")
    parser.add_argument("--row", type=int, default=1, help="kills that follow on each other before a run may finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", nargs="*", default=[], help="these alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        well = attack(options, Path(name))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
