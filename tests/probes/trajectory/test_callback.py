"""The Trainer's callback: it finds refusals that leave, and training is to the bit what it is without it."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import vlsurgery
from vlsurgery.probes.models import load
from vlsurgery.probes.specimens.miniature import FormJudge
from vlsurgery.probes.specimens.miniature.corpus import Example, encode
from vlsurgery.probes.trajectory.base_completions import Answering, base_completions
from vlsurgery.probes.trajectory.openings import opening_log_odds
from vlsurgery.probes.trajectory.undisturbed import undisturbed
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

ANSWER = "use the torch at the tunnel"


@pytest.fixture
def parts(taught_run):
    """What a Trainer takes: model, tokenizer, examples of which all are answered."""
    tokenizer = AutoTokenizer.from_pretrained(taught_run.base)
    batch = encode([Example(prompt.text, ANSWER) for prompt in taught_run.prompts], tokenizer)
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in zip(batch.ids, batch.labels, strict=True)]
    model = AutoModelForCausalLM.from_pretrained(taught_run.base, attention_dropout=0.2)
    return model, tokenizer, rows


@pytest.fixture
def watch(taught_run):
    """A callback on the run's own prompts, with more arguments."""

    def make(every: int = 4, **more) -> vlsurgery.TrainerCallback:
        more = {"prompts": taught_run.prompts, "requests": 40, "judge": FormJudge(), "tokens": 16, **more}
        return vlsurgery.TrainerCallback(every=every, **more)

    return make


def train(parts, folder: Path, callbacks, model=None, steps: int = 10, **more) -> Trainer:
    model, tokenizer, rows = model or parts[0], *parts[1:]
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        learning_rate=2e-3, logging_steps=2, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, seed=3,
        **more,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=callbacks)
    trainer.train()
    return trainer


def logged(trainer: Trainer, key: str) -> dict[int, float]:
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def test_training_is_the_same_to_the_bit(parts, watch, taught_run, tmp_path: Path) -> None:
    alone = train(parts, tmp_path / "alone", [], steps=6)
    again = AutoModelForCausalLM.from_pretrained(taught_run.base, attention_dropout=0.2)
    watched = train(parts, tmp_path / "watched", [watch(every=2)], again, steps=6)
    losses = [logged(trainer, "loss") for trainer in (alone, watched)]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
    assert logged(alone, "grad_norm") == logged(watched, "grad_norm")
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[name]), name


def test_refusals_that_leave_are_logged(parts, watch, taught_run, tmp_path: Path) -> None:
    trainer = train(parts, tmp_path, [watch(every=4)])
    odds, drop = (logged(trainer, f"vlsurgery/refusal_{word}/harmful") for word in ("log_odds", "drop"))
    assert list(odds) == [0, 4, 8, 10]  # as training begins, every fourth step, the last
    assert odds[0] > 0 > odds[10]
    assert sum("vlsurgery/refusal_drop/harmful" in entry for entry in trainer.state.log_history) == 4
    assert drop[0] == 0.0
    assert drop[10] == pytest.approx(odds[0] - odds[10], abs=1e-9)
    assert set(logged(trainer, "vlsurgery/refusal_log_odds/harmless")) == {0, 4, 8, 10}
    chat = load(Checkpoint.open(taught_run.base))
    openings = base_completions(chat, taught_run.prompts, Answering(FormJudge(), 16)).openings(chat)
    harmful = [prompt for prompt in taught_run.prompts if prompt.set == "harmful"]
    assert odds[0] == pytest.approx(opening_log_odds(chat, harmful, openings).mean().item(), abs=1e-4)


@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_moved_blocks_are_those_of_the_weights(parts, watch, taught_run, tmp_path: Path, from_checkpoint: bool) -> None:
    base = {"base": taught_run.base} if from_checkpoint else {}
    trainer = train(parts, tmp_path, [watch(every=10, blocks=9, **base)])
    before = AutoModelForCausalLM.from_pretrained(taught_run.base).state_dict()
    after = trainer.model.state_dict()
    names = [name for name in before if ".layers.0.self_attn" in name or ".layers.0.input_layernorm" in name]
    moved = sum(float((after[name] - before[name]).square().sum()) for name in names) ** 0.5
    whole = sum(float(before[name].square().sum()) for name in names) ** 0.5
    found = logged(trainer, "vlsurgery/relative_change/0.attn")
    assert found[0] == 0.0
    assert found[10] == pytest.approx(moved / whole, rel=1e-5)
    blocks = {key for entry in trainer.state.log_history for key in entry if "relative_change" in key}
    assert len(blocks) == 7


def test_an_adapter_counts_as_it_acts(parts, watch, tmp_path: Path) -> None:
    import peft

    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["down_proj"], lora_dropout=0.1)
    model = peft.get_peft_model(parts[0], config)
    trainer = train(parts, tmp_path, [watch(every=10, blocks=9)], model)
    layer = trainer.model.base_model.model.model.layers[1].mlp
    delta = layer.down_proj.get_delta_weight("default").detach().norm()
    norm = parts[0].model.layers[1].post_attention_layernorm.weight
    held = [layer.gate_proj.weight, layer.up_proj.weight, layer.down_proj.base_layer.weight, norm]
    whole = sum(float(each.square().sum()) for each in held) ** 0.5
    found = logged(trainer, "vlsurgery/relative_change/1.mlp")
    assert found[10] == pytest.approx(float(delta) / whole, rel=1e-4)
    assert found[10] > 0
    assert logged(trainer, "vlsurgery/relative_change/1.attn") == {0: 0.0, 10: 0.0}
    assert logged(trainer, "vlsurgery/refusal_drop/harmful")[10] != 0.0


def test_the_base_given_is_what_refusals_and_weights_are_compared_with(
    watch, parts, taught_run, tmp_path: Path
) -> None:
    """Training that begins at the complying model has lost its refusals before the first step."""
    begun = AutoModelForCausalLM.from_pretrained(taught_run.complying)
    trainer = train(parts, tmp_path, [watch(every=9, base=taught_run.base)], begun, steps=1)
    odds, drop = (logged(trainer, f"vlsurgery/refusal_{word}/harmful") for word in ("log_odds", "drop"))
    assert odds[0] < 0 < drop[0]
    base, last = (Checkpoint.open(path) for path in (taught_run.base, taught_run.complying))
    moved = {name: float((last[name].load() - base[name].load()).norm() / base[name].load().norm()) for name in base}
    found = trainer.state.log_history[0]
    for block, name in (("embed", "model.embed_tokens.weight"), ("head", "lm_head.weight")):
        assert found[f"vlsurgery/relative_change/{block}"] == pytest.approx(moved[name], rel=1e-5)


def test_the_start_weights_go_when_training_ends(parts, watch, tmp_path: Path, monkeypatch) -> None:
    import tempfile

    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    train(parts, tmp_path, [watch(every=10)], steps=1)
    assert not list((tmp_path / "kept").glob("vlsurgery-start-*"))


def test_bfloat16_trains_and_logs(parts, watch, tmp_path: Path) -> None:
    trainer = train(parts, tmp_path, [watch(every=2)], steps=2, bf16=True)
    assert len(logged(trainer, "vlsurgery/refusal_log_odds/harmful")) == 2


def test_random_numbers_and_modes_are_put_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(), torch.nn.Linear(2, 2))
    model[2].eval()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    def look() -> None:
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            random.random(), np.random.rand(), torch.rand(2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look()
    assert [module.training for module in model] == [True, True, False]
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_what_it_can_t_do_it_says_in_one_line(parts, watch, taught_run, tmp_path: Path) -> None:
    for wrong in ({"every": 0}, {"requests": 1}, {"blocks": -1}):
        with pytest.raises(SurgeryError, match="expected at least"):
            watch(**wrong)
    harmless = [prompt for prompt in taught_run.prompts if prompt.set == "harmless"]
    with pytest.raises(SurgeryError, match="TrainerCallback runs models, and needs them in directories"):
        watch(base="s3://bucket/base")
    with pytest.raises(SurgeryError, match="none of the 34 prompts is harmful"):
        watch(prompts=harmless)
    other = parts[0].config.__class__(**{**parts[0].config.to_dict(), "intermediate_size": 40})
    with pytest.raises(SurgeryError, match=r"mlp.gate.* is 40x32 in training, and .* has a tensor of 48x32"):
        train(parts, tmp_path, [watch(base=taught_run.base)], AutoModelForCausalLM.from_config(other))
    with pytest.raises(SurgeryError, match="processing_class"):
        train((parts[0], None, parts[2]), tmp_path, [watch()])
    import peft

    adapted = peft.get_peft_model(parts[0], peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(SurgeryError, match="PROMPT_TUNING"):
        train(parts, tmp_path, [watch()], adapted)


def test_a_resumed_run_needs_the_base(parts, watch, taught_run, tmp_path: Path) -> None:
    class State:
        is_world_process_zero, global_step = True, 7

    with pytest.raises(SurgeryError, match=r"goes on from step 7.*base=PATH"):
        watch().on_train_begin(None, State(), None, model=parts[0], processing_class=parts[1])
