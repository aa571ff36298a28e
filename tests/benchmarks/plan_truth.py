"""What `--plan` says beside what the steps really do: prompts, passes, completions, tokens, seconds and memory.

Run it as `python tests/benchmarks/plan_truth.py [BASE ADAPTED SAFETY] [--budget 3m]`; without checkpoints a tiny trio
is trained. `vlsurgery diff`, `probe` and `merge --auto` are planned and then run, in one thread, each in this process.
Passes are counted by hooks inside of decoder blocks: a pass that runs a part of the blocks counts as that part. What a
model is only tried with is counted apart: the words that every loaded model reads and writes, padding, passes that
begin at a block, the check of a first batch's gradients. Seconds are the processor's, in the plan too, so that a busy
machine changes neither; memory is the peak of the process.

With `--counts` the plan's speed is a fixed one, so that the sample is the same on every machine; exit code 1 where a
count is further off than MOST_OFF, where a budget asked other requests than it said, or where a rate is known worse
than it said.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import torch
from tiny_trio import make_trio, write_prompts
from transformers import GenerationMixin
from typer.testing import CliRunner

from vlsurgery.cli.main import app
from vlsurgery.cli.workflow import sample, sizes, speed
from vlsurgery.cli.workflow.engine import Flow, Step
from vlsurgery.cli.workflow.speed import Speed
from vlsurgery.cli.workflow.workload import Expected
from vlsurgery.probes import gradients
from vlsurgery.probes.evaluation import generate
from vlsurgery.probes.evaluation.intervals import wilson
from vlsurgery.probes.models import ChatModel, loading, reuse
from vlsurgery.surgery.checkpoint import Checkpoint

COUNTED: Final = ("prompts", "forward", "gradient", "completions")
MOST_OFF: Final = 0.3
FIXED: Final = Speed(products=5e10, writing=2e10, operation=2e-6, sweep=5e-10)
SAID: Final = re.compile(r"--budget \S+: (\d+) of (\d+) (\w+) requests are measured: .*? known to ±(0\.\d+)")


@dataclass
class Counted:
    """What models did. forward, gradient: passes of a prompt. tried: such passes that only try a model out."""

    asked: set[str] = field(default_factory=set)
    forward: float = 0.0
    gradient: int = 0
    completions: int = 0
    tokens: int = 0
    tried: float = 0.0

    @property
    def prompts(self) -> int:
        return len(self.asked)


class Counter:
    """Counts what models do, into `now`, while they are not tried out."""

    def __init__(self) -> None:
        self.now = Counted()
        self._trials = 0
        self._writing = 0

    def watch(self, chat: ChatModel) -> None:
        """Count the passes of a model from now on."""
        model: Any = chat.model

        def whole(module: object, args: Any, kwargs: Any) -> None:
            if torch.is_grad_enabled() and not self._trials:
                self.now.gradient += _rows(args, kwargs)

        def part(module: object, args: Any, kwargs: Any) -> None:
            if torch.is_grad_enabled() or self._writing:
                return
            passes = _rows(args, kwargs) / len(chat.blocks)
            if self._trials:
                self.now.tried += passes
            else:
                self.now.forward += passes

        model.register_forward_pre_hook(whole, with_kwargs=True)
        for block in chat.blocks:  # a block that is passed by is called too, but nothing in it
            next(block.children()).register_forward_pre_hook(part, with_kwargs=True)

    @contextmanager
    def trying(self) -> Iterator[None]:
        self._trials += 1
        yield
        self._trials -= 1

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._writing += 1
        yield
        self._writing -= 1


def _rows(args: Any, kwargs: Any) -> int:
    """How many prompts a pass has."""
    return len(args[0] if args else kwargs.get("input_ids", kwargs.get("hidden_states")))


def attach(counter: Counter) -> None:
    """Have every model that is loaded from now on counted."""
    load, encode, write, said = loading.load, ChatModel.encode, GenerationMixin.generate, generate._generated

    def loaded(checkpoint: Checkpoint, how: Any = loading.AS_FOUND) -> ChatModel:
        with counter.trying():
            chat = load(checkpoint, how)
        counter.watch(chat)
        return chat

    def encoded(chat: ChatModel, prompts: Any) -> Any:
        counter.now.asked.update(prompt.id for prompt in prompts)
        return encode(chat, prompts)

    def written(*args: Any, **kwargs: Any) -> Any:
        with counter.writing():
            return write(*args, **kwargs)

    def completed(*args: Any) -> Any:
        found = said(*args)
        counter.now.completions += len(found)
        counter.now.tokens += sum(len(each.ids) for each in found)
        return found

    def tried(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with counter.trying():
                return work(*args)

        return run

    loading.load, ChatModel.encode = loaded, encoded
    GenerationMixin.generate, generate._generated = written, completed
    generate.reads_padding = tried(generate.reads_padding)
    reuse.BlockInputs._tried = tried(reuse.BlockInputs._tried)
    gradients._agrees = tried(gradients._agrees)


@dataclass
class Did:
    """What a step did. seconds: of the processor. memory: peak bytes of the process."""

    counted: Counted
    seconds: float
    memory: int

    @property
    def figures(self) -> dict[str, float]:
        found = {name: float(getattr(self.counted, name)) for name in (*COUNTED, "tokens")}
        return {**found, "seconds": self.seconds, "memory": float(self.memory)}


def watch_steps(counter: Counter) -> dict[str, Did]:
    """Step -> what it did, of all steps that any command runs from now on."""
    found: dict[str, Did] = {}
    run = Flow._run

    def watched(flow: Flow, step: Step) -> None:
        counter.now = Counted()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        began = time.process_time()
        run(flow, step)
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        found[step.name] = Did(counter.now, time.process_time() - began, peak)

    Flow._run = watched
    return found


def command(*words: str) -> str:
    """What a command says; that of `--json` on standard output."""
    done = CliRunner().invoke(app, list(words))
    if done.exit_code:
        raise SystemExit(f"{words}: {done.exit_code}: {done.output} {done.exception!r}")
    return done.stdout if "--json" in words else done.output


def compared(words: Sequence[str], did: dict[str, Did]) -> tuple[bool, str]:
    """Plan a command, run it, print both; whether all counts are near, and what the run said."""
    plan = json.loads(command(*words, "--plan", "--json"))["plan"]
    did.clear()
    said, near = command(*words), True
    for step in plan:
        if step["step"] not in did:
            continue
        found = did[step["step"]]
        for name, real in found.figures.items():
            planned = step[name] or 0.0
            if planned and real:
                scale = 1e6 if name == "memory" else 1.0
                off = f"{planned / real - 1:+8.0%}"
                print(f"{step['step']:14}{name:12}{planned / scale:12.1f}{real / scale:12.1f}{off}", flush=True)
            if name in COUNTED:
                near = near and is_near(step["step"], name, planned, real)
        print(f"{step['step']:14}{'tried out':12}{'':12}{found.counted.tried:12.1f}", flush=True)
    return near, said


def is_near(step: str, name: str, planned: float, real: float) -> bool:
    """Whether a count is as planned. How often coefficients are linearised, one to four times, only the run tells."""
    if (step, name) == ("coefficients", "gradient"):
        return real in [times * planned / Expected().linearisations for times in range(1, 5)]
    return abs(planned - real) <= MOST_OFF * max(real, 1.0)


def keeps_its_word(case: Path, said: str) -> bool:
    """Whether the table has as many requests as a budget said, and rates known no worse than by binomial intervals."""
    told = {name: (int(some), float(half)) for some, _, name, half in SAID.findall(" ".join(said.split()))}
    rows = [row for row in json.loads((case / "behaviour.json").read_text())["rows"] if row["role"] == "adapted"]
    lines = map(json.loads, (case / "completions.jsonl").read_text().splitlines())
    asked_of = {(line["set"], line["request"]) for line in lines if line["role"] == "adapted"}
    well = bool(told)
    for name, (requests, half) in told.items():
        rates = {row["modality"]: row["refused"] for row in rows if row["set"] == name}
        asked = sum(set_ == name for set_, _ in asked_of)
        low, high = wilson(0.9 * requests, requests)
        widest = 0.0
        for each in rates.values():
            if each["low"] is None:  # of a single request nothing is said
                continue
            likely = wilson(each["rate"] * each["requests"], each["requests"])
            widest = max(widest, (each["high"] - each["low"]) / (likely[1] - likely[0]))
        told_of = f"{name}: said {requests} requests, ±{half:.2f}; asked {asked}"
        print(f"{told_of}; intervals at most {widest:.2f} times binomial ones", flush=True)
        well = well and asked == requests and abs(half - (high - low) / 2) < 0.006 and widest <= 1 + MOST_OFF
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="*", help="BASE ADAPTED SAFETY; none: a tiny trio")
    parser.add_argument("--budget", default="full")
    parser.add_argument("--floor", type=int, default=sample.MIN_REQUESTS, help="requests of a set, at least")
    parser.add_argument("--level", choices=("norms", "full"), default="full", help="of the diff")
    parser.add_argument("--alone", action="store_true", help="no probe of its own before the merge")
    parser.add_argument("--counts", action="store_true", help="a fixed speed, and exit code 1 where counts are off")
    given = parser.parse_args()
    torch.set_num_threads(1)
    speed.time = SimpleNamespace(perf_counter=time.process_time)
    sample.MIN_REQUESTS = given.floor
    if given.counts:
        sizes.measured = lambda *_: FIXED
    counter = Counter()
    attach(counter)
    did = watch_steps(counter)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case, files = ["--case", str(folder / "case")], []
        if not given.checkpoints:
            given.checkpoints, files = make_trio(folder), write_prompts(folder)
        print(f"{'':14}{'':12}{'planned':>12}{'found':>12}{'off':>8}")
        compared(["diff", *given.checkpoints, "--level", given.level, *case], did)
        near = True
        if not given.alone:
            near, _ = compared(["probe", *files, "--budget", given.budget, *case], did)
        merged, said = compared(["merge", "--auto", *files, "--budget", given.budget, *case], did)
        kept = given.budget == "full" or keeps_its_word(folder / "case", said)
    sys.exit(1 if given.counts and not (near and merged and kept) else 0)


if __name__ == "__main__":
    main()
