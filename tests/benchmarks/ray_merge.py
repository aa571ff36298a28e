"""What a Ray cluster on this machine gives: the same bytes, whoever is killed; and what it costs.

    python tests/benchmarks/ray_merge.py [--parts bytes,kills,drivers,cost,speed,memory] [--gb 4.4|13.5] [--data DIR]

bytes: every method, and a diff at both levels, by two workers and by one process; every file is compared. kills:
merges during which random workers are killed with SIGKILL in the middle of a shard, until --kills of them were.
drivers: the program itself is killed at random moments, and the same command given again, --drivers times. cost:
seconds to start a cluster, until workers answer, of a task, to end. speed: a ties merge and full spectra, bound by the
processor, by one process on one core and on all, and by workers. memory: a ties merge of synthetic checkpoints by one
process, by two workers of a cluster that starts and ends with the command, and by two of one that runs already: the
peak of each worker (VmHWM) must stay below 1.2 GiB, and at 13.5 GB the running cluster is to take at most 1.1 times as
long as the process. Random moments follow --seed. Ends with 1 where a file differs, something is left
running, or a bound is missed.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import synthetic
from platformdirs import user_cache_path
from timing import Run, run, vlsurgery

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.host import torch_in_one_thread
from vlsurgery.surgery.runtime.ray_cluster import LOOPBACK, ray_cluster
from vlsurgery.surgery.runtime.worker_pool import cores

T = TypeVar("T")

ROLES = ("base", "adapted", "safety", "other")
PARTS = ("bytes", "kills", "drivers", "cost", "speed", "memory")
# The names that Ray gives the process of a worker, and one that is doing an item.
WORKER, WORKING = "ray::_Worker", "ray::_Worker.do"
LIMIT_BYTES = 1.2 * 2**30
MOST = 1.1
# Gigabytes from which on that is asked: below, starting workers is much of the time.
LARGE = 10
PORT = 6391
TASKS = 1000
# Seconds in which Ray's own agents notice that their cluster is gone, at most.
AGENT_SECONDS = 90
# Time between two kills, in that from the start of the workers to the first shard: shorter, none would be done.
BETWEEN = (0.1, 1.2)
# Gigabytes -> shapes as in synthetic.py, and bytes of a shard.
SMALL = {0.001: ((64, 6, 160, 4, 4, 256), 1 << 17), 0.3: ((1024, 6, 4096, 8, 8, 8192), 1 << 25)}


@dataclass(frozen=True)
class Nothing:
    """Work that takes no time."""

    def __call__(self) -> Callable[[int], list[int]]:
        return lambda number: [number]


def made(folder: Path, gb: float, roles: Sequence[str] = ROLES) -> dict[str, Checkpoint]:
    """Checkpoints of a size, which are made where they are missing."""
    if gb in SMALL:
        synthetic.MODELS[gb], synthetic.SHARD_BYTES = SMALL[gb]
    synthetic.make(folder, gb, roles)
    return {role: Checkpoint.open(folder / role) for role in roles}


def recipe_of(opened: dict[str, Checkpoint], name: str) -> Recipe:
    rule = METHODS[name]
    models = dict(zip(rule.named_inputs or ROLES[1:][: rule.models[1]], ROLES[1:], strict=False))
    whole = rule.coefficient.high == 1 and rule.coefficient.meaning.startswith("whether")
    roles = {"base": "base"} | models if rule.needs_base else models
    return Recipe.of(
        {name: opened[role] for name, role in roles.items()},
        {"everywhere": dict.fromkeys(models, 1.0 if whole else 0.4)},
        method=name,
        like=next(iter(roles)),
        base="base" if rule.needs_base and name != "blend" else None,
        seed=7,
    )


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def workers_of(process: psutil.Process, name: str = WORKER) -> list[psutil.Process]:
    """The worker processes below a process."""
    found = []
    for child in process.children(recursive=True):
        try:
            if child.cmdline()[:1] and child.cmdline()[0].startswith(name):
                found.append(child)
        except psutil.Error:
            continue  # It has ended meanwhile.
    return found


def strangers_reached(process: psutil.Process) -> list[str]:
    """The addresses beyond the loopback interface on which a process and those below it listen."""
    found = []
    for each in (process, *process.children(recursive=True)):
        try:
            listening = [at.laddr for at in each.net_connections("inet") if at.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue
        found += [f"{each.name()} {ip}:{port}" for ip, port in listening if not ip.endswith((LOOPBACK, "::1"))]
    return found


def same_bytes(folder: Path) -> bool:
    opened, equal, files = made(folder / "tiny", 0.001), 0, 0
    with ray_cluster("local:2") as engine:
        for name in METHODS:
            recipe, alone, divided = recipe_of(opened, name), folder / "alone", folder / "divided"
            run_merge(recipe, alone)
            run_merge(recipe, divided, engine=engine)
            wanted = digests(alone)
            files += len(wanted)
            equal += wanted == digests(divided)
            for out in (alone, divided):
                shutil.rmtree(out)
        beyond = strangers_reached(psutil.Process())
        print(
            f"bytes: {equal} of {len(METHODS)} methods are equal in every file ({files} files), 2 workers", flush=True
        )
        trio, numbers = align({role: opened[role] for role in ROLES[:3]}), 0
        with torch_in_one_thread():
            for level in ("norms", "full"):
                one, other = (diff(trio, level, engine=each) for each in (None, engine))
                numbers += one.json_text() == other.model_copy(update={"created": one.created}).json_text()
    print(f"bytes: {numbers} of 2 levels of a diff are equal in every number", flush=True)
    print(f"ports: {len(beyond)} beyond the loopback interface {' '.join(beyond)}", flush=True)
    return equal == len(METHODS) and numbers == 2 and not beyond


@contextmanager
def killer(rng: random.Random, unit: float, each: float, kills: list[int], most: int) -> Iterator[None]:
    """Kill random workers of this process's cluster in the middle of an item, and note their ids.

    unit: seconds between kills, about. each: seconds that an item takes.
    """
    over = threading.Event()

    def work() -> None:
        while not over.wait(unit * rng.uniform(*BETWEEN)) and len(kills) < most:
            while not workers_of(psutil.Process(), WORKING) and not over.wait(0.05):
                pass
            over.wait(each * rng.random())
            if found := workers_of(psutil.Process(), WORKING):
                victim = rng.choice(found)
                victim.kill()
                kills.append(victim.pid)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def equal_whoever_dies(done: Callable[[Engine | None], object], what: str, unit: float, most: int, seed: int) -> bool:
    """Whether work by two workers comes to the same as by one process, the first time with nobody killed and then while
    random workers are, until `most` were.

    done: does the work, and returns what is to be equal. unit: seconds that a worker which begins takes to its first
    result, about.
    """
    kills: list[int] = []
    runs = equal = 0
    began = time.perf_counter()
    wanted = done(None)
    print(f"one process: {time.perf_counter() - began:.1f} s", flush=True)
    with ray_cluster("local:2") as engine:
        while runs < 1 or len(kills) < most:
            began = time.perf_counter()
            with killer(random.Random(seed + runs), unit, unit, kills, most) if runs else nullcontext():
                equal += done(engine) == wanted
            if not runs:
                print(f"two workers: {time.perf_counter() - began:.1f} s with their start", flush=True)
            runs += 1
    print(f"kills: {len(kills)} workers killed in {runs} {what}, {equal} of them equal to the bit", flush=True)
    return equal == runs


def worker_kills(folder: Path, data: Path, count: int, seed: int) -> bool:
    kills: list[int] = []
    first: list[float] = []
    merges, equal, out = 0, 0, folder / "killed"
    recipe = recipe_of(made(data / "0.3GB", 0.3), "ties")
    wanted = run_merge(recipe, folder / "wanted").shards

    def timed(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        began = time.monotonic()
        for item in items:
            first.append(time.monotonic() - began)
            yield item

    with ray_cluster("local:2") as engine:
        equal += run_merge(recipe, out, timed, engine=engine).shards == wanted
        each = 2 * (first[-1] - first[0]) / (len(first) - 1)
        with killer(random.Random(seed), first[0], each, kills, count):
            while len(kills) < count:
                shutil.rmtree(out)
                equal += run_merge(recipe, out, engine=engine).shards == wanted
                merges += 1
                print(f"kills: {len(kills)} so far, {merges} merges", file=sys.stderr, flush=True)
    print(
        f"kills: {len(kills)} workers killed in the middle of a shard, in {merges} merges of {len(wanted)} shards; "
        f"{equal} of {merges + 1} merges equal in every shard",
        flush=True,
    )
    return equal == merges + 1


def left_running(processes: Sequence[psutil.Process]) -> list[str]:
    """The names of those that run on when Ray's agents have had their time to notice."""
    _, alive = psutil.wait_procs(processes, timeout=AGENT_SECONDS)
    return [each.name() for each in alive if each.is_running()]


def driver_kills(folder: Path, data: Path, count: int, seed: int) -> bool:
    rng, out, equal = random.Random(seed), folder / "out", 0
    kept: list[int] = []
    paths = {role: checkpoint.path for role, checkpoint in made(data / "0.3GB", 0.3).items()}
    words = ["merge", "--method", "ties", *(paths[role] for role in ROLES[1:3])]
    command = [*map(str, vlsurgery(*words, "--base", paths["base"], "-o", out, "--ray", "local:2"))]
    run(command)
    wanted, partial = digests(out), out.with_name("out.partial")
    shards = len([*out.glob("*.safetensors")])
    below: list[psutil.Process] = []
    for _ in range(count):
        shutil.rmtree(out)
        moment = rng.randrange(shards)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            while process.poll() is None and len([*partial.glob("*.safetensors")]) < moment:
                time.sleep(0.01)
            time.sleep(0.2 * rng.random())
            below += psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
        kept.append(len([*partial.glob("*.safetensors")]) if partial.exists() else shards)
        run(command)
        equal += digests(out) == wanted
    left = left_running(below)
    print(
        f"drivers: {count} killed, when {', '.join(map(str, kept))} of {shards} shards were finished; {equal} equal "
        f"after the same command again; {len(left)} processes of their clusters left {'; '.join(left)}",
        flush=True,
    )
    return equal == count and not left


def cost() -> bool:
    importing = run([sys.executable, "-c", "import ray"]).seconds
    began = time.monotonic()
    with ray_cluster("local:2") as engine:
        started = time.monotonic()
        list(engine.map(Nothing(), range(2)))
        answered = time.monotonic()
        list(engine.map(Nothing(), range(2 + TASKS)))
        done = time.monotonic()
    ended = time.monotonic()
    each = (done - answered - (answered - started)) / TASKS
    print(
        f"cost: {importing:.1f} s to import ray, {started - began:.1f} s to start a cluster (imports in it), "
        f"{answered - started:.1f} s until workers answer, {1000 * each:.2f} ms a task, {ended - done:.1f} s to end",
        flush=True,
    )
    return True


def on_cores(count: int, command: Sequence[str | Path]) -> Run:
    """A run on so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        return run(command)
    finally:
        os.sched_setaffinity(0, before)


def speed(folder: Path, data: Path) -> bool:
    paths = {role: checkpoint.path for role, checkpoint in made(data / "0.3GB", 0.3).items()}
    works = {
        "ties": ["merge", "--method", "ties", paths["adapted"], paths["safety"], "--base", paths["base"]],
        "full spectra": ["diff", paths["base"], paths["adapted"], paths["safety"], "--new"],
    }
    for name, words in works.items():
        place = ["-o", folder / "out"] if name == "ties" else ["--case", folder / "case"]
        ways = {"1 core": (1, []), f"{cores()} cores": (cores(), [])}
        ways |= {f"{count} workers": (cores(), ["--ray", f"local:{count}"]) for count in (1, 2, 4)}
        took, before = {}, resource.getrusage(resource.RUSAGE_CHILDREN)
        for way, (count, more) in ways.items():
            took[way] = on_cores(count, vlsurgery(*words, *place, "--quiet", *more)).seconds
            if way == "1 core":
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            for out in (folder / "out", folder / "case"):
                shutil.rmtree(out, ignore_errors=True)
        told = [f"{way} {seconds:.1f} s (x {took['1 core'] / seconds:.2f})" for way, seconds in took.items()]
        print(f"speed: {name}: {', '.join(told)}; Ray's start is in it; {busy:.1f} s of the processor", flush=True)
    return True


def peaks(command: Sequence[str], head: int | None = None) -> tuple[float, dict[int, int]]:
    """Seconds of a command, and process id -> peak bytes of each worker below it, or below the process `head`."""
    found: dict[int, int] = {}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            for worker in workers_of(psutil.Process(head or process.pid)):
                status = Path(f"/proc/{worker.pid}/status")
                lines = status.read_text().splitlines() if status.exists() else []
                peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
                found[worker.pid] = max(found.get(worker.pid, 0), 1024 * peak)
            time.sleep(0.2)
        if process.returncode:
            assert process.stdout is not None
            sys.exit(process.stdout.read().decode(errors="replace"))
    return time.monotonic() - began, found


@contextmanager
def running_cluster(port: int) -> Iterator[psutil.Process]:
    """A cluster of two cores on this machine, as an operator starts one; the process that holds all of its own."""
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", "--block", f"--port={port}", f"--node-ip-address={LOOPBACK}", "--num-cpus=2"]
    start += ["--include-dashboard=false", "--object-store-memory=100000000"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([*ray, *start], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as head:
        try:
            assert head.stdout is not None
            for line in head.stdout:
                if b"Ray runtime started" in line:
                    break
            else:
                sys.exit("memory: no cluster started")
            threading.Thread(target=head.stdout.read, daemon=True).start()
            yield psutil.Process(head.pid)
        finally:
            head.terminate()


def memory(folder: Path, data: Path, gb: float) -> bool:
    roles = ROLES[:3]
    made(data / f"{gb}GB", gb, roles)
    base, *models = (data / f"{gb}GB" / role for role in roles)
    out = folder / "large"
    command = [*map(str, vlsurgery("merge", "--method", "ties", *models, "--base", base, "--quiet", "-o", out))]
    ways = {"alone": [], "starting": ["--ray", "local:2"], "running": ["--ray", f"{LOOPBACK}:{PORT}"]}
    took: dict[str, list[float]] = {way: [] for way in ways}
    peak = 0
    wanted: dict[str, str] = {}
    equal = True
    with running_cluster(PORT) as head:
        for way in (*ways, *reversed(ways)):
            seconds, found = peaks([*command, *ways[way]], head.pid if way == "running" else None)
            took[way].append(seconds)
            peak = max([peak, *found.values()])
            sums = (out / "SHA256SUMS").read_text()
            equal &= wanted.setdefault("sums", sums) == sums
            shutil.rmtree(out)
    ratios = {way: sum(each) / sum(took["alone"]) for way, each in took.items()}
    told = {way: ", ".join(f"{each:.1f}" for each in took[way]) + f" s (x {ratios[way]:.2f})" for way in ways}
    print(
        f"memory: ties, {gb} GB: {told['alone']} alone, {told['starting']} by 2 workers of a cluster that starts with "
        f"it, {told['running']} of one that runs already; {peak / 2**30:.2f} GiB a worker at most, bytes "
        f"{'equal' if equal else 'DIFFER'}",
        flush=True,
    )
    return equal and 0 < peak < LIMIT_BYTES and (ratios["running"] <= MOST or gb < LARGE)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--gb", type=float, choices=[2.2, 4.4, 13.5], default=4.4)
    parser.add_argument("--data", type=Path, default=user_cache_path("vlsurgery") / "synthetic")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--drivers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        works = {
            "cost": cost,
            "bytes": lambda: same_bytes(folder),
            "kills": lambda: worker_kills(folder, options.data, options.kills, options.seed),
            "drivers": lambda: driver_kills(folder, options.data, options.drivers, options.seed),
            "speed": lambda: speed(folder, options.data),
            "memory": lambda: memory(folder, options.data, options.gb),
        }
        good = [works[part]() for part in options.parts]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
