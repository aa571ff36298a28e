"""What transformers loads and can't run is refused in one line, and nothing of the model is changed by the trial."""

from pathlib import Path

import pytest
import torch
import transformers

from vlsurgery.probes.models.trial import try_out
from vlsurgery.surgery.errors import CheckpointError


class Words:
    pad_token_id = None

    def __call__(self, _: str) -> dict[str, list[int]]:
        return {"input_ids": [3, 4, 5]}


@pytest.fixture
def model() -> transformers.PreTrainedModel:
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("cached", [False, True])
def test_an_error_of_the_class_itself_is_one_line(model, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = model.forward

    def failing(*args, use_cache=True, **kwargs):
        if use_cache == cached:
            raise ValueError("state of\nanother shape")
        return forward(*args, use_cache=use_cache, **kwargs)

    monkeypatch.setattr(model, "forward", failing)
    settings = model.generation_config
    with pytest.raises(
        CheckpointError, match=r"LlamaForCausalLM but can't run it: state of another shape. Commands"
    ) as e:
        try_out(Path("here"), model, Words())
    assert "\n" not in str(e.value)
    assert model.generation_config is settings


def test_memory_that_ran_out_is_not_the_checkpoints_fault(model, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", failing)
    with pytest.raises(torch.OutOfMemoryError):
        try_out(Path("here"), model, Words())


def test_a_model_that_runs_is_left_as_it_was(model) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = model.generation_config.to_dict()
    try_out(Path("here"), model, Words())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.generation_config.to_dict() == settings
