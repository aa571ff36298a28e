"""The dtype that models run in: the stored one where it is fast, and what is asked for otherwise."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlsurgery.probes.models import Loader, dtypes, load
from vlsurgery.probes.models.dtypes import device_of, run_dtype
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError


@pytest.fixture
def stored(tmp_path: Path) -> Checkpoint:
    """Mostly bfloat16, with a norm in float32 and counts that are no floats."""
    tensors = {"a": torch.ones(9, 9).bfloat16(), "norm": torch.ones(9), "counts": torch.ones(999).long()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return Checkpoint.open(tmp_path)


@pytest.mark.parametrize(("times", "expected"), [(4.0, torch.bfloat16), (0.6, torch.float32)])
def test_the_stored_dtype_runs_where_the_processor_multiplies_it_fast(
    stored: Checkpoint, monkeypatch: pytest.MonkeyPatch, times: float, expected: torch.dtype
) -> None:
    monkeypatch.setattr(dtypes, "speedup", lambda _: times)
    assert run_dtype(stored, "auto", "cpu") == expected
    assert run_dtype(stored, "auto", "cuda") == torch.bfloat16
    assert run_dtype(stored, "float16", "cpu") == torch.float16


def test_float32_is_as_fast_as_itself() -> None:
    assert dtypes.speedup(torch.float32) == 1.0


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(SurgeryError, match="--device nonsense"):
        device_of("nonsense")
    assert device_of("cpu") == "cpu"
    assert device_of("auto") == "auto"


def test_what_runs_in_bfloat16_is_the_rounded_model_and_says_so(trio) -> None:
    whole = load(trio.checkpoints["adapted"], Loader(dtype="float32"))
    short = load(trio.checkpoints["adapted"], Loader(dtype="bfloat16"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(short.model.state_dict()[name], tensor.bfloat16()), name
    assert any("runs in bfloat16" in note for note in short.notes)
    assert not any("runs in" in note for note in whole.notes)


def test_a_model_divided_over_all_devices_says_what_the_whole_one_says(trio) -> None:
    whole = load(trio.checkpoints["adapted"], Loader(dtype="float32", device="cpu"))
    divided = load(trio.checkpoints["adapted"], Loader(dtype="float32", device="auto"))
    ids = torch.tensor([[3, 4, 5]])
    one, other = (chat.model(input_ids=ids.to(chat.device)).logits.cpu() for chat in (whole, divided))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_dividing_a_model_without_accelerate_says_which_extra_brings_it(trio, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SurgeryError, match=r"vlsurgery\[accelerate\]"):
        load(trio.checkpoints["base"], Loader(device="auto"))
