"""Checkpoints in a store: what is read and merged there is what lies on disk, and a change is told."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.contents import take_contents
from vlsurgery.surgery.checkpoint.identity import BLOCK_BYTES, spaced_blocks
from vlsurgery.surgery.checkpoint.remote import remote_file
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.preparation import prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Upload = Callable[[Path], str]
Folders = Callable[[str], dict[str, Path]]

LAYOUTS = ("single", "sharded", "tied")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of 1000 bytes at most."""
    monkeypatch.setattr(remote_file, "PART_BYTES", 1000)


def raw(checkpoint: Checkpoint) -> dict[str, bytes]:
    found = {}
    for name, tensor in checkpoint.items():
        buffer = bytearray(tensor.nbytes)
        tensor.read_into(memoryview(buffer))
        found[name] = bytes(buffer)
    return found


def opened(places: Mapping[str, str | Path]) -> dict[str, Checkpoint]:
    return {role: Checkpoint.open(place) for role, place in places.items()}


def recipe_of(models: dict[str, Checkpoint], method: str = "ties") -> Recipe:
    given = dict.fromkeys((role for role in models if role != "base"), 0.4)
    return Recipe.of(models, {"everywhere": given}, method=method, like="adapted", base="base", seed=3)


def merged(models: dict[str, Checkpoint], out: Path, method: str = "ties") -> dict[str, bytes]:
    """What a merge writes, but for the files that name its inputs."""
    run_merge(recipe_of(models, method), out)
    naming = ("README.md", "recipe.yaml", "SHA256SUMS")
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name not in naming
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_at_a_url_is_what_is_on_disk(folders: Folders, upload: Upload, tmp_path: Path, layout: str) -> None:
    paths = folders(layout)
    here = opened(paths)
    away = {role: Checkpoint.open(f"{upload(path)}/") for role, path in paths.items()}
    for role, checkpoint in away.items():
        assert checkpoint.identity == here[role].identity
        assert list(checkpoint) == list(here[role])
        assert raw(checkpoint) == raw(here[role])
        assert list(checkpoint.companions) == list(here[role].companions)
        assert checkpoint.left_behind == here[role].left_behind == ["trainer.log"]
        assert checkpoint.config == here[role].config
    assert take_contents(away, at_urls=True) == take_contents(here)
    assert take_contents(away) == {}
    for method in ("ties", "dare_linear"):
        wanted = merged(here, tmp_path / f"{method}-here", method)
        assert merged(away, tmp_path / f"{method}-away", method) == wanted
        assert {"tokenizer.json", "additional_chat_templates/tools.jinja"} <= wanted.keys()
    one, other = (diff(align(models), "full") for models in (here, away))
    assert other.model_copy(update={"created": one.created, "checkpoints": one.checkpoints}) == one


def test_it_is_opened_again_by_what_results_record(folders: Folders, upload: Upload, files: Any) -> None:
    url = upload(folders("sharded")["adapted"])
    ref = Checkpoint.open(url).ref_model
    assert ref.path == url
    again = Checkpoint.reopen(ref)
    assert again.is_known_as(ref.identity)
    listed = Checkpoint.open(url, headers_only=True)
    assert listed.identity.startswith("headers:")
    assert listed.location == url
    with pytest.raises(CheckpointError, match="only listed"):
        raw(listed)
    stamp = again.stamp
    assert Checkpoint.open(url).stamp == stamp
    place = url.removeprefix("memory:/") + "/model-00001-of-00003.safetensors"
    files.pipe_file(place, files.cat_file(place))  # written again, with the same bytes
    assert Checkpoint.open(url).stamp != stamp
    assert Checkpoint.open(url).identity == ref.identity


def test_local_copies_go_with_the_checkpoint(folders: Folders, upload: Upload) -> None:
    checkpoint = Checkpoint.open(upload(folders("single")["base"]))
    copies = checkpoint.path
    assert (copies / "tokenizer.json").is_file()
    assert not list(copies.glob("*.safetensors"))
    del checkpoint
    assert not copies.exists()


def test_an_adapter_on_disk_is_folded_into_a_base_at_a_url(
    folders: Folders, upload: Upload, write_adapter: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = folders("single")["base"]
    adapter = write_adapter(tmp_path / "adapter")
    here, away = (Checkpoint.open(f"{base}+{adapter}") for base in (path, upload(path)))
    assert raw(here) == raw(away) != raw(Checkpoint.open(path))
    assert here.identity == away.identity
    assert away.location.endswith(f"+{adapter}")
    with pytest.raises(CheckpointError, match="adapters are read from directories"):
        Checkpoint.open(f"{path}+{upload(adapter)}")


@pytest.fixture
def write_adapter() -> Callable[[Path], Path]:
    from safetensors.torch import save_file

    def made(folder: Path) -> Path:
        folder.mkdir()
        stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
        save_file({f"{stem}A.weight": torch.ones(2, 16), f"{stem}B.weight": torch.ones(16, 2)},
                  folder / "adapter_model.safetensors")  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 1, "r": 2}))
        return folder

    return made


def test_a_merge_that_was_cut_short_goes_on_and_one_of_other_files_begins_afresh(
    folders: Folders, upload: Upload, files: Any, tmp_path: Path
) -> None:
    urls = {role: upload(path) for role, path in folders("sharded").items()}
    out, parts = tmp_path / "out", tmp_path / "out.partial"
    wanted = merged(opened(urls), tmp_path / "whole")

    def cut_short(items: Any, label: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 14:
                while not any(parts.glob("*.safetensors")):
                    time.sleep(0.01)
                raise KeyboardInterrupt
            yield item

    def begun_and_again() -> list[str]:
        with pytest.raises(KeyboardInterrupt):
            run_merge(recipe_of(opened(urls)), out, cut_short)
        before_the_second_run()
        return run_merge(recipe_of(opened(urls)), out).notes

    def before_the_second_run() -> None:
        if out.exists():
            place = urls["safety"].removeprefix("memory:/") + "/model-00002-of-00003.safetensors"
            files.pipe_file(place, files.cat_file(place))

    assert any("finished before, and are kept" in note for note in begun_and_again())
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == {
        name: data for name, data in wanted.items() if name.endswith(".safetensors")
    }
    assert any("begun afresh" in note for note in begun_and_again())


@pytest.mark.parametrize("work", ["merge", "diff"])
def test_a_file_that_changes_meanwhile_is_told(
    folders: Folders, upload: Upload, files: Any, tmp_path: Path, work: str
) -> None:
    urls = {role: upload(path) for role, path in folders("single").items()}
    models = opened(urls)
    recipe, alignment = recipe_of(models), align(models, "adapted")
    prepared = prepare_merge(recipe, alignment)
    place = urls["safety"].removeprefix("memory:/") + "/model.safetensors"
    files.pipe_file(place, files.cat_file(place))
    works = {
        "merge": lambda: run_merge(recipe, tmp_path / "out", prepared=prepared),
        "diff": lambda: diff(alignment, "norms"),
    }
    with pytest.raises(CheckpointError, match=r"/safety/model\.safetensors: had .* it changed while it was being"):
        works[work]()
    assert not (tmp_path / "out").exists()


def test_the_contents_that_a_recipe_records_are_compared_at_a_url(
    tmp_path: Path, write: Write, llama: Llama, upload: Upload, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured on disk and is now at a URL: every byte counts, those that no identity samples too."""
    monkeypatch.setattr(remote_file, "PART_BYTES", 1 << 21)
    paths = {role: write(tmp_path / role, llama(seed, vocab=70_000)) for seed, role in enumerate(("base", "adapted"))}
    models = opened(paths)
    for role, contents in take_contents(models).items():
        models[role].contents = contents
    recipe = Recipe.of(models, {"default": {"base": 0.4}})
    urls = {role: upload(path) for role, path in paths.items()}
    refs = {role: ref.model_copy(update={"path": urls[role]}) for role, ref in recipe.checkpoints.items()}
    moved = recipe.model_copy(update={"checkpoints": refs})
    written = [run_merge(order, tmp_path / name).shards for name, order in (("here", recipe), ("away", moved))]
    assert written[0] == written[1]
    place = urls["base"].removeprefix("memory:/") + "/model.safetensors"
    data = bytearray(files.cat_file(place))
    taken = {
        *spaced_blocks(len(data)),
        *((tensor.offset + tensor.nbytes // 2) // BLOCK_BYTES for tensor in models["base"].values()),
    }
    data[next(block for block in range(100, 2000) if block not in taken) * BLOCK_BYTES] ^= 1
    files.pipe_file(place, bytes(data))
    assert Checkpoint.open(urls["base"]).identity == models["base"].identity
    with pytest.raises(CheckpointError, match="not the bytes that were measured"):
        run_merge(moved, tmp_path / "other")
