import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vlsurgery.probes.specimens.miniature import evaluation_prompts, stages
from vlsurgery.probes.specimens.miniature.build import build_config, specimen_of
from vlsurgery.probes.specimens.miniature.config import SpecimenConfig, TrainingStage

SEED = 5
FULL = SpecimenConfig()


def shortened(stage: TrainingStage, steps: int = 2) -> TrainingStage:
    return replace(stage, steps=steps)


TINY = replace(
    FULL,
    hidden=16,
    intermediate=24,
    layers=2,
    heads=2,
    tower_layers=1,
    jitters=1,
    picture_batch=8,
    base=shortened(FULL.base),
    tower=shortened(FULL.tower),
    naming=shortened(FULL.naming),
    projector=shortened(FULL.projector),
    adaptation=shortened(FULL.adaptation, 12),
    safety=shortened(FULL.safety),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(cache):
    return build_config(TINY, SEED, cache)


@pytest.fixture(scope="module")
def pictured():
    asked = evaluation_prompts.prompts(SEED)
    return next(prompt for prompt in asked if prompt.modality == "benign" and prompt.set == "harmless")


def weights(specimen):
    return [
        (directory / "model.safetensors").read_bytes()
        for directory in (specimen.base, specimen.adapted, specimen.safety)
    ]


def assert_whole(report):
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_base_loads_and_answers_in_words(tiny, pictured):
    model, report = AutoModelForCausalLM.from_pretrained(tiny.base, output_loading_info=True)
    assert_whole(report)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.float32
    words = AutoTokenizer.from_pretrained(tiny.base)
    turns = [{"role": "user", "content": pictured.text}]
    inputs = words.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**inputs, max_new_tokens=3)
    assert written.shape[1] > inputs["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == words.eos_token_id


@pytest.mark.parametrize("role", ["adapted", "safety"])
def test_the_others_load_and_see(tiny, pictured, role):
    directory = getattr(tiny, role)
    model, report = AutoModelForImageTextToText.from_pretrained(directory, output_loading_info=True)
    assert_whole(report)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    processor = AutoProcessor.from_pretrained(directory)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": pictured.text}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    with torch.no_grad():
        seen, other = (
            model(**processor(images=[image], text=[text], return_tensors="pt")).logits
            for image in (pictured.image, pictured.image.transpose(0))
        )
    assert seen.shape[-1] == len(processor.tokenizer)
    assert torch.isfinite(seen).all()
    assert not torch.equal(seen, other)


def test_adaptation_keeps_names_and_adds_a_row(tiny):
    base = AutoModelForCausalLM.from_pretrained(tiny.base)
    adapted = AutoModelForImageTextToText.from_pretrained(tiny.adapted)
    text = adapted.model.language_model.state_dict()
    assert text.keys() == base.model.state_dict().keys()
    assert len(text["embed_tokens.weight"]) == len(base.model.embed_tokens.weight) + 1
    assert not torch.equal(text["layers.0.mlp.up_proj.weight"], base.model.layers[0].mlp.up_proj.weight)


def test_safety_tuning_leaves_the_eyes_alone(tiny):
    adapted, safety = (AutoModelForImageTextToText.from_pretrained(d) for d in (tiny.adapted, tiny.safety))
    before, after = adapted.state_dict(), safety.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.language_model.", "lm_head.")) for name in changed)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny, tmp_path):
    assert weights(build_config(TINY, SEED, tmp_path)) == weights(tiny)
    assert weights(build_config(TINY, SEED + 1, tmp_path))[0] != weights(tiny)[0]


def test_a_second_build_returns_the_first(tiny, cache, monkeypatch):
    monkeypatch.setattr(stages, "train_base", lambda _setup: pytest.fail("trained again"))
    assert build_config(TINY, SEED, cache) == tiny


def test_another_config_has_another_cache_directory(tiny):
    assert replace(TINY, jitters=2).hash != TINY.hash == replace(TINY).hash
    assert TINY.hash in str(tiny.root)


def test_each_checkpoint_knows_its_specimen(tiny, tmp_path):
    for directory in (tiny.base, tiny.adapted, tiny.safety):
        assert specimen_of(directory) == tiny
    assert specimen_of(tmp_path) is None


def test_the_story_says_how_adaptation_went(tiny):
    assert tiny.story == json.loads(json.dumps(tiny.story))
    adaptation = tiny.story["adaptation"]
    assert adaptation["steps"] == TINY.adaptation.steps == 12
    assert list(adaptation["refusals"]) == ["0", "10"]
    shares = [*adaptation["refusals"].values(), adaptation["refusal"], adaptation["fresh_refused"]]
    assert all(0 <= share <= 1 for share in shares)
    assert "12 steps" in adaptation["told"]
    assert f"{adaptation['refusal']:.0%} at the end" in adaptation["told"]


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "tune_safety", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_config(TINY, SEED, tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not list(tmp_path.rglob("seed-*"))


def test_a_builder_that_comes_second_keeps_what_is_there(tiny, tmp_path, monkeypatch):
    """Two at once: while this one trains, another puts a finished trio under the name."""
    tune = stages.tune_safety

    def overtaken(*arguments):
        place = next(tmp_path.iterdir()) / tiny.root.name
        shutil.copytree(tiny.root, place)
        (place / "witness").touch()
        return tune(*arguments)

    monkeypatch.setattr(stages, "tune_safety", overtaken)
    second = build_config(TINY, SEED, tmp_path)
    assert (second.root / "witness").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_building_changes_no_global_state(tmp_path):
    torch.manual_seed(11)
    before = torch.get_rng_state(), torch.get_num_threads()
    build_config(TINY, SEED + 2, tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert torch.tensor(1e-40).item() != 0


def test_every_stage_is_tracked(tmp_path):
    labels = []

    def progress(items, label, total=None):
        labels.append(label)
        return items

    build_config(TINY, SEED + 3, tmp_path, progress)
    assert len(labels) == len(set(labels)) >= 5
