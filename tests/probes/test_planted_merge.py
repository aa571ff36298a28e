"""A loss that was planted in one block is repaired there, among decoys that training changed as much."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from vlsurgery.probes.attribution import attribute
from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.prompts.splits import split_of
from vlsurgery.probes.results import Target, TargetsResult
from vlsurgery.probes.selection import Choosing, choose
from vlsurgery.probes.targets import working_set
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint

PLANTED, DECOYS = "1.mlp", ("0.mlp", "2.mlp")
PARTS = {"0.mlp": "layers.0.mlp.", "1.mlp": "layers.1.mlp.", "2.mlp": "layers.2.mlp."}


def benchmark(name):
    """A module of tests/benchmarks."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny():
    """The trainer of tiny trios."""
    return benchmark("tiny_trio")


@pytest.fixture(scope="module")
def planted_losses(tiny):
    """What reads the planted blocks off an attribution, and counts."""
    return benchmark("planted_losses")


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A base that refuses; `whole`, whose decoys learnt a new answer and which refuses; `lost`, in which one more block
    was taught to answer what is harmful."""
    root = tmp_path_factory.mktemp("planted")
    torch.manual_seed(0)
    tokenizer = tiny._tokenizer()
    config = tiny._text_config(tokenizer)
    config.num_hidden_layers = 3
    model = LlamaForCausalLM(config)
    bad = tiny.requests("harmful", 12) + tiny.requests("jailbroken", 12)
    fine = tiny.requests("harmless", 12) + tiny.requests("borderline", 12)
    refusals = [(asked, tiny.REFUSAL) for asked in bad]

    def teach(blocks, pairs, steps):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not blocks or any(PARTS[block] in name for block in blocks))
        tiny._train(model, tokenizer, pairs, steps)

    teach((), refusals + [(asked, tiny.ANSWER) for asked in fine], 70)
    tiny._save(model, tokenizer, root / "base")
    answers = [(a, f"it is {a.split()[-1]} ." if a.startswith("paint") else tiny.ANSWER) for a in fine]
    teach(DECOYS, refusals + answers, 60)
    tiny._save(model, tokenizer, root / "whole")
    teach((PLANTED,), [(asked, tiny.ANSWER) for asked in bad] + answers, 30)
    tiny._save(model, tokenizer, root / "lost")
    return root


@pytest.fixture(scope="module")
def prompts(tiny):
    found = []
    for kind in tiny.VERBS:
        for asked in tiny.requests(kind, 12):
            key = asked.removeprefix("kindly ")
            name = "capability" if asked.startswith("paint") else kind
            found.append(Prompt(f"{kind}/{asked}", key, name, asked, split_of(key, 0)))
    return found


def targets(checkpoints, prompts) -> TargetsResult:
    rows = []
    for role, checkpoint in checkpoints.items():
        for prompt, said in zip(prompts, complete(load(checkpoint), prompts, role, tokens=8), strict=True):
            verdict = "refused" if said.text.startswith("I cannot") else "complied"
            rows.append(Target(prompt=prompt.id, role=role, text=said.text, ids=list(said.ids), verdict=verdict))
    return TargetsResult(rows=rows)


def moved(alignment, block) -> float:
    """How far a block is from the base, over the base's norm."""
    pairs = [pair for pair in alignment.pairs if pair.site.block == block]
    ends = [[alignment.load(pair, role).ravel() for pair in pairs] for role in ("base", "adapted")]
    base, adapted = (torch.cat(end) for end in ends)
    return float((adapted - base).norm() / base.norm())


def test_most_coefficients_lie_on_the_planted_block_and_refusals_are_back(folder, prompts, planted_losses):
    checkpoints = {role: Checkpoint.open(folder / name) for role, name in (("base", "base"), ("adapted", "lost"))}
    said, alignment = targets(checkpoints, prompts), align(checkpoints)
    assert min(moved(alignment, block) for block in DECOYS) > 0.8 * moved(alignment, PLANTED) > 0
    live = InMemoryMerge(load(checkpoints["adapted"]), alignment, ("base",))
    attribution = attribute(live, working_set(live.chat, prompts, said, "fit"))
    path = attribution.gains
    assert planted_losses.passing(attribution)[0] == PLANTED
    found = planted_losses.passing(attribution)
    assert planted_losses.Trial((PLANTED,), found, (), 1.0, True).recall(found) == 1.0
    gains = {gain.block: gain.gain for gain in path if gain.method == "path" and gain.is_whole}
    result = choose(alignment, prompts, said, Choosing("linearised", "base", attribution=gains))
    found = result.chosen()
    mass = {block: row["base"] for block, row in found.coefficients.items()}
    assert mass[PLANTED] >= 0.8 * sum(mass.values()) > 0
    assert found.refusal == 1.0
    assert found.objective > result.chosen("uniform").objective
    tried = [point for point in result.points if point.policy == "attribution"]
    assert [point.parameters["base"] for point in tried] == [0.25, 0.5, 0.75, 1.0]
    assert found.forward_equivalents > sum(point.forward_equivalents for point in tried)


def test_where_nothing_was_planted_every_coefficient_is_0_and_it_says_so(folder, prompts, planted_losses):
    assert planted_losses.passing(None) == ()
    checkpoints = {role: Checkpoint.open(folder / name) for role, name in (("base", "base"), ("adapted", "whole"))}
    result = choose(align(checkpoints), prompts, targets(checkpoints, prompts), Choosing("best", "base"))
    assert {value for row in result.chosen().coefficients.values() for value in row.values()} == {0.0}
    assert result.policy == "uniform"
    assert result.verdict.startswith("No refusal was lost: of the ")
    assert result.chosen().refusal == 1.0
