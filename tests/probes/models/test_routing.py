"""Classes and processors are chosen by what they can do; blindness and missing packages are told."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from vlsurgery.probes.activations import recording
from vlsurgery.probes.models.blocks import decoder_blocks, residual_stream
from vlsurgery.probes.models.processors import missing_packages, needs_packages
from vlsurgery.probes.models.routing import blind, picture_processor, route
from vlsurgery.surgery.errors import CheckpointError


@pytest.mark.parametrize(
    ("config", "auto"),
    [
        (transformers.LlavaConfig, "AutoModelForImageTextToText"),
        (transformers.ChameleonConfig, "AutoModelForImageTextToText"),
        (transformers.FuyuConfig, "AutoModelForImageTextToText"),
        (transformers.Phi4MultimodalConfig, "AutoModelForMultimodalLM"),
        (transformers.Gemma3Config, "AutoModelForImageTextToText"),
        (transformers.Gemma3TextConfig, "AutoModelForCausalLM"),
        (transformers.LlamaConfig, "AutoModelForCausalLM"),
    ],
)
def test_a_config_is_run_by_the_class_that_takes_all_of_it(config: type, auto: str) -> None:
    assert route(config()).auto is getattr(transformers, auto)


def test_of_a_model_that_speaks_the_part_that_writes_is_run() -> None:
    config = transformers.Qwen2_5OmniConfig()
    assert route(config).config is config.thinker_config


def test_a_class_of_sounds_alone_has_no_processor_of_pictures(tmp_path: Path) -> None:
    model = SimpleNamespace(forward=lambda input_features: input_features)
    assert picture_processor(tmp_path, route(transformers.Qwen2AudioConfig()), model, {}) is None  # type: ignore[arg-type]


def test_what_could_see_and_is_run_blind_is_told(tmp_path: Path) -> None:
    seeing = transformers.LlamaConfig(vision_config={"hidden_size": 8})
    assert "asked in text alone, though its config has a part for pictures" in "".join(blind(tmp_path, seeing))
    assert [*blind(tmp_path, transformers.LlamaConfig())] == []
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert "though it has preprocessor_config.json" in "".join(blind(tmp_path, transformers.LlamaConfig()))


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    error = ImportError("TimmWrapperModel requires the timm library but it was not found in your environment.")
    assert missing_packages(error) == ["timm"]
    assert "needs timm. Install pip install 'vlsurgery[vision]'" in str(needs_packages(Path("m"), ["timm"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert missing_packages(error) == []


def test_a_model_without_a_text_stack_is_refused_in_one_line() -> None:
    model = nn.Linear(2, 2)
    model.config = transformers.LlamaConfig()  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match=r"Linear: no text stack: looked for 32 layers"):
        decoder_blocks(model)


class _Crossing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cross_attn = nn.Identity()


def test_a_block_of_cross_attention_that_text_skips_passes_the_state_on() -> None:
    blocks = [nn.Identity(), _Crossing(), nn.Identity()]
    rows, columns = torch.tensor([0]), torch.tensor([1])
    with recording(blocks, rows, columns) as states:
        blocks[2](blocks[0](torch.arange(4.0).reshape(1, 2, 2)) + 1)
    assert [state.tolist() for state in states] == [[[2, 3]], [[2, 3]], [[3, 4]]]


def test_any_other_block_that_does_not_run_is_a_fault() -> None:
    with (
        pytest.raises(RuntimeError, match=r"decoder blocks \[0, 1\] did not run"),
        recording([nn.Identity(), nn.Identity()], torch.tensor([0]), torch.tensor([0])),
    ):
        pass


def test_of_several_streams_the_one_that_a_block_computes_on_is_read() -> None:
    block = nn.Identity()
    block.config = SimpleNamespace(altup_active_idx=1)  # type: ignore[assignment]
    streams = torch.arange(12.0).reshape(3, 1, 2, 2)
    assert torch.equal(residual_stream(block, streams), streams[1])
    assert torch.equal(residual_stream(block, (streams[0],)), streams[0])
