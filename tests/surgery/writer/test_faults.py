"""Killed, interrupted, out of room or out of input: the target is as it was, and the same command goes on."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint, LazyTensor
from vlsurgery.surgery.errors import CheckpointError, TargetError
from vlsurgery.surgery.runtime.progress import no_progress
from vlsurgery.surgery.writer import Piece, plan_shards, write as write_planned
from vlsurgery.surgery.writer.filling import fill_here
from vlsurgery.surgery.writer.journal import JOURNAL
from vlsurgery.surgery.writer.output_directory import partial_of

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Hook = Callable[[LazyTensor], None]

SHARDS = 6
TEXTS = {"recipe.yaml": "schema: vlsurgery/recipe/1\n", "README.md": "# A merge\n"}
HOUSE = Path(__file__).parents[3]

# A program that writes the negative of a checkpoint: SCRIPT LIKE OUT SECONDS-PER-TENSOR [FAULT]. It needs no torch, so
# that it starts in an instant. FAULT is a line of Python that is run before the seventh tensor is made.
SCRIPT = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import vlsurgery.surgery.writer.filling, vlsurgery.surgery.writer.writer
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
like, out, pace, fault = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), "".join(sys.argv[4:])
negative, count = bytes(255 - value for value in range(256)), 0
def fill(tensor, view):
    time.sleep(pace)
    tensor.read_into(view)
    view[:] = bytes(view).translate(negative)
def produce(tensor):
    global count
    count += 1
    if count == 7:
        exec(fault)
    yield vlsurgery.surgery.writer.writer.Piece(tensor.nbytes, lambda view: fill(tensor, view))
texts = {"recipe.yaml": "schema: vlsurgery/recipe/1\\n", "README.md": "# A merge\\n"}
try:
    with ThreadPoolExecutor(1) as pool:
        order = vlsurgery.surgery.writer.writer.plan_shards(Checkpoint.open(like))
        shards = vlsurgery.surgery.writer.filling.partial(
            vlsurgery.surgery.writer.filling.fill_here, produce, pool, (), lambda items, label, total=None: items
        )
        vlsurgery.surgery.writer.writer.write(order, out, shards, texts, note=print, pool=pool)
except SurgeryError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class Model(NamedTuple):
    """A checkpoint in several shards, and what its negative is when nothing goes wrong."""

    path: Path
    negative: dict[str, bytes]


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory, write: Write, llama: Llama) -> Model:
    folder = tmp_path_factory.mktemp("faults")
    path = write(folder / "like", llama(3), shards=SHARDS)
    run_negative(path, folder / "out")
    return Model(path, contents(folder / "out"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def negative(tensor: LazyTensor, view: memoryview) -> None:
    tensor.read_into(view)
    view[:] = bytes(view).translate(bytes(255 - value for value in range(256)))


def run_negative(like: Path, out: Path, hook: Hook | None = None, **options: Any) -> dict[str, str]:
    """What SCRIPT does, in this process. hook: called with each tensor before it is handed over."""

    def produce(tensor: LazyTensor) -> Iterator[Piece]:
        if hook is not None:
            hook(tensor)
        yield Piece(tensor.nbytes, partial(negative, tensor))

    with ThreadPoolExecutor(2) as pool:
        fill = partial(fill_here, produce, pool, (), no_progress)
        texts = {**TEXTS, **options.pop("texts", {})}
        return write_planned(plan_shards(Checkpoint.open(like)), out, fill, texts, pool=pool, **options)[0]


def at(count: int, act: Callable[[], Any]) -> Hook:
    """Act once, when the `count`-th tensor is asked for and everything handed over before it is written."""
    seen = iter(range(count))

    def hook(_: LazyTensor) -> None:
        if next(seen, None) == count - 1:
            time.sleep(0.1)
            act()

    return hook


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """The shards that the journal beside `out` says are finished: file -> inode and modification time."""
    folder = partial_of(out)
    if not (folder / JOURNAL).exists():
        return {}
    lines = (folder / JOURNAL).read_text().splitlines()
    return {entry["file"]: stamp(folder / entry["file"]) for entry in map(json.loads, lines) if "file" in entry}


def stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-c", SCRIPT, *map(str, arguments)]


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment_the_same_command_goes_on(model: Model, tmp_path: Path, seed: int) -> None:
    """Really killed, by another process. Finished shards stay the very same files; the result is as if nothing had
    happened."""
    out = tmp_path / "out"
    process = subprocess.Popen(program(model.path, out, 0.02), cwd=HOUSE, stdout=subprocess.DEVNULL)
    while not partial_of(out).exists() and process.poll() is None:
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.42))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    before = finished(out)
    again = subprocess.run(program(model.path, out, 0), cwd=HOUSE, capture_output=True, text=True, check=True)
    assert contents(out) == model.negative
    assert {file: stamp(out / file) for file in before} == before
    assert bool(before) == ("were finished before" in again.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("count", [1, 8, 20])
def test_ctrl_c_keeps_finished_shards_and_nothing_else(model: Model, tmp_path: Path, count: int) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_negative(model.path, out, at(count, raises(KeyboardInterrupt())))
    before = finished(out)
    assert bool(before) == (count > 4) == partial_of(out).exists()
    assert not out.exists()
    notes: list[str] = []
    run_negative(model.path, out, note=notes.append)
    assert contents(out) == model.negative
    assert {file: stamp(out / file) for file in before} == before
    assert len(notes) == bool(before)


def test_another_order_begins_afresh_and_says_so(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_negative(model.path, out, at(20, raises(KeyboardInterrupt())))
    before, notes = finished(out), []
    run_negative(model.path, out, texts={"recipe.yaml": "schema: vlsurgery/recipe/1\nseed: 1\n"}, note=notes.append)
    assert {stamp(out / file) for file in before}.isdisjoint(before.values())
    assert len(notes) == 1
    assert "begun afresh" in notes[0]


def test_a_finished_shard_that_lost_bytes_is_written_again(model: Model, tmp_path: Path) -> None:
    """A power cut can take pages that were written but not yet on the disk."""
    out, notes = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        run_negative(model.path, out, at(20, raises(KeyboardInterrupt())))
    victim, *others = finished(out)
    with (partial_of(out) / victim).open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(bytes(4))
    before = finished(out)
    run_negative(model.path, out, note=notes.append)
    assert contents(out) == model.negative
    assert all(stamp(out / file) == before[file] for file in others)
    assert victim in notes[0]


def test_one_at_a_time(model: Model, tmp_path: Path) -> None:
    out, reached, go = tmp_path / "out", threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go.wait(30)

    with ThreadPoolExecutor(1) as other:
        first = other.submit(run_negative, model.path, out, at(20, hold))
        assert reached.wait(30)
        try:
            before = contents(partial_of(out))
            with pytest.raises(TargetError, match="another process is merging into it"):
                run_negative(model.path, out)
            assert contents(partial_of(out)) == before
        finally:
            go.set()
        first.result()
    assert contents(out) == model.negative


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def replace(path: Path) -> None:
    """Other weights of the same size, by a rename."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-100] + bytes(100))
    os.replace(other, path)


@pytest.mark.parametrize("fault", [truncate, replace, Path.unlink])
@pytest.mark.parametrize("count", [3, 20])
def test_an_input_that_changes_is_named(
    model: Model, tmp_path: Path, fault: Callable[[Path], None], count: int
) -> None:
    like = shutil.copytree(model.path, tmp_path / "like")
    out, victim = tmp_path / "out", like / f"model-{SHARDS:05}-of-{SHARDS:05}.safetensors"
    with pytest.raises(CheckpointError) as caught:
        run_negative(like, out, at(count, lambda: fault(victim)))
    assert str(victim) in str(caught.value)
    assert not out.exists()
    assert bool(finished(out)) == (count == 20)
    for file in finished(out):
        assert (partial_of(out) / file).read_bytes() == model.negative[file]


def test_another_input_that_changes_is_named(model: Model, tmp_path: Path) -> None:
    """Also one that is not what the result is like."""
    other = Checkpoint.open(shutil.copytree(model.path, tmp_path / "other"))
    victim = tmp_path / "other" / f"model-00001-of-{SHARDS:05}.safetensors"
    with pytest.raises(CheckpointError, match=f"{victim}: was written to"):
        run_negative(model.path, tmp_path / "out", at(8, lambda: os.utime(victim)), inputs=[other])
    assert not (tmp_path / "out").exists()


def on_a_small_disk(folder: Path, megabytes: int, *commands: str) -> "subprocess.CompletedProcess[str]":
    """Run shell commands where `folder` is a disk of its own, which nobody else sees."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {folder} || exit 77"
    script = "\n".join([mount, *commands])
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a small disk with")
    ran = subprocess.run([*unshare, "sh", "-c", script], cwd=HOUSE, capture_output=True, text=True, check=False)
    if ran.returncode == 77 or ran.stderr.startswith("unshare:"):
        pytest.skip(f"this process may not mount a disk: {ran.stderr.strip()}")
    return ran


def shell(*words: str) -> str:
    import shlex

    return shlex.join(words)


FILL_UP = "os.system('cat /dev/zero > ' + str(out.parent / 'junk') + ' 2> /dev/null')"


@pytest.mark.parametrize("reserved", [True, False])
def test_a_disk_that_fills_up(model: Model, tmp_path: Path, reserved: bool) -> None:
    """Really full, by somebody else, in the middle: where shards are reserved the small files behind them have no room,
    else a shard has none. Once there is room again, the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    fault = ("" if reserved else "time.sleep(.1); ") + FILL_UP
    unreserved = "" if reserved else "import os; del os.posix_fallocate"
    first = program(model.path, disk / "out", 0, fault)
    first[2] = f"{unreserved}\n{first[2]}"
    ran = on_a_small_disk(
        disk,
        1,
        f"{shell(*first)}; echo code $?; ls {disk}",
        f"rm {disk}/junk; {shell(*program(model.path, disk / 'out', 0))}; cp -r {disk}/out {tmp_path}/result",
    )
    assert f"TargetError: {disk}/out: can't be written (No space left on device)" in ran.stderr
    assert re.search(r": [1-9]\d* bytes are missing", ran.stderr)
    assert "the same command goes on" in ran.stderr
    assert "code 1\njunk\nout.partial\n" in ran.stdout
    assert "were finished before, and are kept" in ran.stdout
    assert contents(tmp_path / "result") == model.negative


def test_a_disk_without_room_for_the_shards_is_told_before_anything_is_made(model: Model, tmp_path: Path) -> None:
    """Also when the room went between looking and reserving it."""
    (tmp_path / "disk").mkdir()
    command = program(model.path, tmp_path / "disk" / "out", 0)
    fill = f"head -c 1030000 /dev/zero > {tmp_path}/disk/junk; "
    ran = on_a_small_disk(tmp_path / "disk", 1, fill + shell(*command))
    assert "the merge needs" in ran.stderr
    assert "are free there" in ran.stderr
    command[2] = command[2].replace(
        "try:\n", "vlsurgery.surgery.writer.writer.check_target = lambda *_: None\ntry:\n", 1
    )
    ran = on_a_small_disk(tmp_path / "disk", 1, fill + shell(*command, "1/0"), f"ls {tmp_path}/disk")
    assert "No space left on device" in ran.stderr
    assert "are missing" in ran.stderr
    assert ran.stdout == "junk\n"


def test_a_limit_on_the_size_of_files(model: Model, tmp_path: Path) -> None:
    """The second means of running out of room, for those who may not mount a disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    command = program(model.path, tmp_path / "out", 0)
    ran = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert f"TargetError: {tmp_path}/out: can't be written (File too large)" in ran.stderr
    assert list(tmp_path.iterdir()) == []
