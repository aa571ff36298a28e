"""What happens beside a command: signals, a reader that goes away, a second command, an input that changes.

Run it as `python tests/benchmarks/at_once.py [TRIAL ...]`. Every trial forks commands on a tiny trio, and stops them
at a chosen change of a file, so that it meets them in the middle. A trial raises AssertionError with what it found.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kills import LOG, Arena, Run, digests, ended, fork, on_change, unreadable, whole
from tiny_trio import make_trio

from vlsurgery.probes.evaluation import evaluate

THINGS = 4
# Changes of files that a diff makes before it writes what it found, at least.
EARLY = 5
WAIT = 300  # seconds, at most


def at_change(change: int, act: Callable[[], None]) -> None:
    """Do something just before this process changes a file for the so many-th time."""
    left = [change]

    def once(path: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            act()

    on_change(once)


def stop_until(reached: Path, go: Path) -> None:
    """Say that this place is reached, and wait for leave."""
    reached.touch()
    end = time.monotonic() + WAIT
    while not go.exists() and time.monotonic() < end:
        time.sleep(0.01)


class Trials:
    """The trials, on the case that a diff has opened. `arena` has measured diff and merge."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.steps = {step.name: step for step in arena.steps}
        self.here = arena.here

    def signals(self) -> None:
        """A command that is asked to end does so with the signal's number, says so in one line, and can go on."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.arena.start(self.steps["diff"])
            run = self._run("diff", partial(at_change, EARLY, partial(_ask_to_end, number)))
            assert run.code == 128 + number, run
            assert run.said.strip().splitlines()[-1].startswith("interrupted: "), run
            assert "Traceback" not in run.said, run
            self._goes_on("diff")

    def closed_pipes(self) -> None:
        """The reader of what a command prints goes away in the middle."""
        for number in (1, 2):
            self.arena.start(self.steps["diff"])
            run = self._run("diff", partial(at_change, EARLY, partial(_read_no_more, number)))
            assert run.code in (0, 141), run
            assert "Traceback" not in run.said, run
            self._goes_on("diff")

    def two_commands(self) -> None:
        """Of two commands on one case, or two merges to one target, the second is refused; the first is not hurt."""
        for first, second, why in (
            ("diff", "diff", "another vlsurgery command is working in this case"),
            ("diff", "probe", "another vlsurgery command is working in this case"),
            ("merge", "merge", "another process is merging into it"),
        ):
            self.arena.start(self.steps[first])
            reached, go = (self.arena.folder / f"{first}-{second}-{name}" for name in ("reached", "go"))
            # The case's lock is taken, or the merge has its journal, by the last change but a few.
            change = max(2, self.arena.spans[first].changes - 4)
            began = time.perf_counter()
            child = fork(
                self.steps[first].words, self.here, partial(at_change, change, partial(stop_until, reached, go))
            )
            while not reached.exists():
                assert not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT), (
                    self.here / LOG
                ).read_text()
                time.sleep(0.01)
            os.rename(self.here / LOG, self.here / f"first-{LOG}")
            refused = self._run(second)
            go.touch()
            os.rename(self.here / f"first-{LOG}", self.here / LOG)
            done = ended(child, self.here, began)
            assert refused.code == 2, refused
            assert why in refused.said.strip().splitlines()[-1], refused
            assert "Traceback" not in refused.said, refused
            assert done.code == 0, done
            assert digests(self.here) == self.arena.expected[first]

    def changed_inputs(self) -> None:
        """An input that is written to, cut off or replaced in mid-merge is named, and nothing looks finished."""
        weights = self.arena.folder / "safety" / "model.safetensors"
        whole_file, times = weights.read_bytes(), weights.stat()
        for change in (_rewrite, _cut_off, _replace):
            self.arena.start(self.steps["merge"])
            try:
                run = self._run("merge", partial(at_change, 4, partial(change, weights)))
            finally:
                weights.write_bytes(whole_file)
                os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
            assert run.code == 2, run
            assert str(weights) in run.said.strip().splitlines()[-1], run
            assert "Traceback" not in run.said, run
            assert not (self.here / "merged").exists()
            self._goes_on("merge")

    def resumed_evaluation(self) -> None:
        """An evaluation that was killed asks only what was not answered yet, and finds the same."""
        self.arena.start(self.steps["evaluate"])
        answers = self.here / "case" / "completions.jsonl"
        everything = self.arena.expected["evaluate"]
        run = self._run("evaluate", partial(_kill_at_model, 3))
        assert run.code == -signal.SIGKILL, run
        kept = len(answers.read_text().splitlines())
        asked = self.here / "asked.txt"
        again = self._run("evaluate", partial(_count_asked, asked))
        assert again.code == 0, again
        total = len(answers.read_text().splitlines())
        assert 0 < kept < total, (kept, total)
        newly = sum(map(int, asked.read_text().split()))
        assert newly == total - kept, (newly, kept, total)
        asked.unlink()
        assert digests(self.here) == everything

    def _run(self, name: str, prepare: Callable[[], None] = lambda: None) -> Run:
        return whole(self.steps[name].words, self.here, prepare)

    def _goes_on(self, name: str) -> None:
        fault = unreadable(self.here)
        assert not fault, fault
        again = self._run(name)
        assert again.code == 0, again
        assert digests(self.here) == self.arena.expected[name]


def _ask_to_end(number: int) -> None:
    os.kill(os.getpid(), number)


def _read_no_more(number: int) -> None:
    """Put a pipe that nobody reads in the place of a standard stream."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, number)


def _rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))


def _cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-100] + bytes(100))
    os.replace(other, path)


def _count_asked(file: Path) -> None:
    """Note of every model how many prompts it is asked."""
    complete = evaluate.complete

    def counted(chat, prompts, *rest, **named):  # type: ignore[no-untyped-def]
        with file.open("a") as notes:
            notes.write(f"{len(prompts)}\n")
        return complete(chat, prompts, *rest, **named)

    evaluate.complete = counted


def _kill_at_model(number: int) -> None:
    """Kill this process when it has half of what the so many-th model says."""
    complete, left = evaluate.complete, [number]

    def killed(chat, prompts, *rest, written, **named):  # type: ignore[no-untyped-def]
        left[0] -= 1
        if left[0]:
            return complete(chat, prompts, *rest, written=written, **named)
        complete(chat, prompts[: len(prompts) // 2], *rest, written=written, **named)
        return os.kill(os.getpid(), signal.SIGKILL)

    evaluate.complete = killed


BEFORE = {"diff", "probe", "merge"}  # steps whose uninterrupted course every trial must know
TRIALS = ("signals", "closed_pipes", "two_commands", "changed_inputs", "resumed_evaluation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", nargs="*", choices=[*TRIALS, []], help="these alone")
    chosen = parser.parse_args().trials or TRIALS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = os.fork()
        if not trained:
            # In a process of its own: where gradients were taken, a fork can take none.
            make_trio(folder, THINGS)
            os._exit(0)
        os.waitpid(trained, 0)
        arena = Arena(folder, THINGS)
        arena.measure(BEFORE | ({"evaluate"} if "resumed_evaluation" in chosen else set()))
        trials = Trials(arena)
        for trial in (getattr(trials, name) for name in chosen):
            began = time.process_time()
            trial()
            print(json.dumps({"trial": trial.__name__, "held": True, "seconds": round(time.process_time() - began, 1)}))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
