"""What a checkpoint may be on the command line, beside a directory of safetensors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def pickled(trio: dict[str, Path], tmp_path: Path) -> Path:
    """The adapted model with pickled weights."""
    folder = shutil.copytree(trio["adapted"], tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter of rank 2 on one projection, as PEFT writes it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    generator = torch.Generator().manual_seed(5)
    factors = {
        f"{stem}.lora_A.weight": torch.randn(2, 16, generator=generator),
        f"{stem}.lora_B.weight": torch.randn(16, 2, generator=generator),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def changed(shown: Result) -> set[str]:
    """The base's names of the tensors that the diff found changed."""
    return {pair["names"]["base"] for pair in json.loads(shown.stdout)["pairs"] if pair["metrics"]["vl"]["rms"] > 0}


def test_pickled_weights_take_leave_of_every_command_that_reads_them(
    run: Run, trio: dict[str, Path], pickled: Path
) -> None:
    refused = run("diff", trio["base"], pickled)
    assert refused.exit_code == 2
    assert "--allow-pickle" in refused.stderr
    allowed = run("diff", trio["base"], pickled, "--allow-pickle", "--json")
    assert allowed.exit_code == 0
    plain = run("diff", trio["base"], trio["adapted"], "--case", "plain", "--json")
    metrics = [[pair["metrics"] for pair in json.loads(each.stdout)["pairs"]] for each in (allowed, plain)]
    assert metrics[0] == metrics[1]
    assert run("report").exit_code == 0  # reads results alone


def test_what_a_case_says_of_pickled_weights_is_no_leave(
    run: Run, trio: dict[str, Path], pickled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case.json is a file that anybody can send along with weights that run code when they are loaded."""
    assert run("diff", trio["base"], pickled, "--allow-pickle").exit_code == 0
    loaded: list[object] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **options: loaded.append(file) or load(file, **options))
    for command in (["probe"], ["evaluate"], ["merge", "--auto"], ["merge", "--auto", "--verify"], ["report"]):
        shown = run(*command, *(["--plan"] if "--verify" not in command else []))
        if command != ["report"]:
            assert shown.exit_code == 2, command
            assert "adapted: " in shown.stderr
            assert "--allow-pickle" in shown.stderr
    assert not loaded
    assert run("probe", "--plan", "--allow-pickle").exit_code == 0
    assert loaded


def test_a_base_with_an_adapter_changes_where_the_adapter_says(run: Run, trio: dict[str, Path], adapter: Path) -> None:
    shown = run("diff", trio["base"], f"{trio['base']}+{adapter}", "--json")
    assert shown.exit_code == 0
    assert changed(shown) == {"model.layers.0.self_attn.q_proj.weight"}
    assert run("diff", trio["base"], f"{trio['base']}+nowhere", "--new").exit_code == 2


def test_anatomy_of_two_says_what_they_share(run: Run, trio: dict[str, Path], pickled: Path) -> None:
    shown = run("anatomy", trio["base"], trio["adapted"], "--json")
    shared = json.loads(shown.stdout)["shared"]
    assert len(shared["pairs"]) == len(load_file(trio["base"] / "model.safetensors"))
    assert shared["unmatched"] == []
    assert "Every tensor found its partner" in run("anatomy", trio["base"], trio["adapted"]).stdout
    assert run("anatomy", pickled).exit_code == 2
    assert run("anatomy", pickled, "--allow-pickle").exit_code == 0


def test_a_stranger_as_base_is_warned_of_with_the_figure(run: Run, trio: dict[str, Path], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    folder = shutil.copytree(trio["base"], tmp_path / "unrelated")
    drawn = {
        name: torch.randn(t.shape, generator=generator) for name, t in load_file(folder / "model.safetensors").items()
    }
    save_file(drawn, folder / "model.safetensors", {"format": "pt"})
    shown = run("diff", folder, trio["adapted"])
    assert shown.exit_code == 0
    assert "Warning: The base hardly looks like" in shown.stdout
    assert "Warning" not in run("diff", trio["base"], trio["adapted"], "--new").stdout
