"""A merge by an engine's workers is the merge of one process, byte for byte, whoever is interrupted on the way."""

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.diff.measuring import PairMeasurer
from vlsurgery.surgery.diff.run import diff, groups
from vlsurgery.surgery.errors import CheckpointError, TargetError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.merge.shard_merger import ShardMerger
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.engine import InProcess
from vlsurgery.surgery.writer.journal import JOURNAL

Llama = Callable[..., dict[str, Tensor]]
ROLES = ("base", "adapted", "safe", "unaligned")
SHARDS = 4


@pytest.fixture
def opened(tmp_path: Path, write: Callable[..., Path], llama: Llama) -> dict[str, Checkpoint]:
    return {
        role: Checkpoint.open(write(tmp_path / role, llama(seed, dtype=torch.bfloat16), shards=SHARDS))
        for seed, role in enumerate(ROLES)
    }


def recipe_of(opened: dict[str, Checkpoint], name: str = "ties") -> Recipe:
    rule = METHODS[name]
    models = rule.named_inputs or ROLES[1:][: rule.models[1]]
    whole = rule.coefficient.high == 1 and rule.coefficient.meaning.startswith("whether")
    roles = [*(["base"] if rule.needs_base else []), *models]
    return Recipe.of(
        {role: opened[role] for role in roles},
        {"everywhere": dict.fromkeys(models, 1.0 if whole else 0.4)},
        method=name,
        like=roles[0],
        base="base" if rule.needs_base and name != "blend" else None,
        seed=7,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Backwards(InProcess):
    """Does the items from the last to the first. after: how many are done before `act` is called."""

    after: int = -1
    act: Callable[[], None] = lambda: None

    def map(self, set_up: Any, items: Sequence[Any]) -> Generator[Any, None, None]:
        for number, made in enumerate(super().map(set_up, list(items)[::-1])):
            if number == self.after:
                self.act()
            yield made


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", METHODS)
def test_bytes_are_those_of_one_process_for_every_method(
    opened: dict[str, Checkpoint], tmp_path: Path, name: str
) -> None:
    recipe = recipe_of(opened, name)
    alone = run_merge(recipe, tmp_path / "alone")
    divided = run_merge(recipe, tmp_path / "divided", engine=Backwards())
    assert contents(tmp_path / "divided") == contents(tmp_path / "alone")
    assert alone.model_copy(update={"path": "", "seconds": 0}) == divided.model_copy(update={"path": "", "seconds": 0})


@pytest.mark.parametrize("engines", [("divided", "here"), ("here", "divided"), ("divided", "divided")], ids="-".join)
def test_a_killed_one_is_resumed_by_the_other(
    opened: dict[str, Checkpoint], tmp_path: Path, engines: tuple[str, str]
) -> None:
    """What is left is that of a driver that was killed: finished shards, and attempts of workers at others."""
    recipe, wanted, out = recipe_of(opened), tmp_path / "wanted", tmp_path / "out"
    partial = tmp_path / "out.partial"
    run_merge(recipe, wanted)

    def cut_short(items: Any, label: str, total: int | None = None) -> Any:
        for number, item in enumerate(items):
            if number == (1 if engines[0] == "divided" else 14):
                while not any(partial.glob("*.safetensors")):
                    time.sleep(0.01)
                raise KeyboardInterrupt
            yield item

    first, second = (Backwards() if each == "divided" else None for each in engines)
    with pytest.raises(KeyboardInterrupt):
        run_merge(recipe, out, cut_short, engine=first)
    done = {path.name: path.stat().st_ino for path in partial.glob("*.safetensors")}
    assert 1 <= len(done) < SHARDS
    left = next(path.name for path in wanted.glob("*.safetensors") if path.name not in done)
    (partial / f"{left}.0123456789abcdef.partial").write_bytes(b"half")
    made = run_merge(recipe, out, engine=second)
    assert contents(out) == contents(wanted)
    assert all((out / name).stat().st_ino == inode for name, inode in done.items())
    assert any("shards were finished before" in note for note in made.notes)


def test_an_attempt_that_is_thought_dead_touches_no_other(opened: dict[str, Checkpoint], tmp_path: Path) -> None:
    """A worker that lost its driver goes on with the same shard as one that replaced it."""
    recipe, out = recipe_of(opened), tmp_path / "out"
    run_merge(recipe, tmp_path / "wanted")
    others: list[Any] = []

    def second_worker() -> None:
        work = ShardMerger(recipe, tmp_path / "out.partial")()
        names = sorted(path.name for path in (tmp_path / "wanted").glob("*.safetensors"))
        others.extend(each for name in names for each in work(name))
        assert len({each.written for each in others}) == SHARDS

    run_merge(recipe, out, engine=Backwards(after=1, act=second_worker))
    assert contents(out) == contents(tmp_path / "wanted")


def test_nothing_is_left_where_it_ends_before_the_first_shard(opened: dict[str, Checkpoint], tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_merge(recipe_of(opened), tmp_path / "out", engine=Backwards(after=0, act=interrupted))
    assert sorted(os.listdir(tmp_path)) == before


def test_a_link_with_the_name_of_an_attempt_is_nobodys(opened: dict[str, Checkpoint], tmp_path: Path) -> None:
    recipe, out = recipe_of(opened), tmp_path / "out"
    partial, precious = tmp_path / "out.partial", tmp_path / "precious"
    with pytest.raises(KeyboardInterrupt):
        run_merge(recipe, out, engine=Backwards(after=1, act=interrupted))
    precious.write_text("mine")
    name = next(iter(path.name for path in partial.glob("*.safetensors")))
    (partial / f"{name}.0123456789abcdef.partial").symlink_to(precious)
    with pytest.raises(TargetError, match="which no merge of ours wrote"):
        run_merge(recipe, out, engine=Backwards())
    assert precious.read_text() == "mine"


def test_a_full_disk_of_a_worker_is_told_as_here(opened: dict[str, Checkpoint], tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(TargetError, match=r"out: can't be written \(No space left on device\).*are free there"):
        run_merge(recipe_of(opened), tmp_path / "out", engine=Backwards(after=2, act=full))


def test_a_folder_that_a_worker_does_not_see_is_named(opened: dict[str, Checkpoint], tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="elsewhere: is not there for a worker"):
        ShardMerger(recipe_of(opened), tmp_path / "elsewhere")()


def test_broken_weights_are_named_by_a_worker(
    opened: dict[str, Checkpoint], tmp_path: Path, write: Callable[..., Path], llama: Llama
) -> None:
    weights = llama(1, dtype=torch.bfloat16)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    broken = {**opened, "adapted": Checkpoint.open(write(tmp_path / "broken", weights, shards=SHARDS))}
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight.*NaN or infinite"):
        run_merge(recipe_of(broken), tmp_path / "out", engine=Backwards())
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial" / JOURNAL).is_file() or list((tmp_path / "out.partial").glob("*.safetensors"))


@pytest.mark.parametrize("level", ["norms", "full"])
def test_a_diff_has_the_numbers_of_one_process(opened: dict[str, Checkpoint], level: Level) -> None:
    trio = {"base": opened["base"], "adapted": opened["adapted"], "safety": opened["safe"]}
    alone, divided = (diff(align(trio), level, engine=engine) for engine in (None, Backwards()))
    assert divided.model_copy(update={"created": alone.created}).json_text() == alone.json_text()


def test_a_diff_is_divided_into_every_pair_once(opened: dict[str, Checkpoint]) -> None:
    alignment = align({"base": opened["base"], "adapted": opened["adapted"]})
    tasks = groups(alignment, InProcess())
    assert sorted(site for task in tasks for site in task) == sorted(pair.site for pair in alignment.pairs)
    assert len(tasks) >= 8


def test_another_checkpoint_in_a_place_is_refused_by_a_worker(
    opened: dict[str, Checkpoint], write: Callable[..., Path], llama: Llama
) -> None:
    refs = {role: opened[role].ref_model for role in ("base", "adapted")}
    write(opened["adapted"].path, llama(9, dtype=torch.bfloat16), shards=SHARDS)
    with pytest.raises(CheckpointError, match=r"adapted .*: is another checkpoint than was opened at first"):
        PairMeasurer(refs, "adapted", "norms")()
