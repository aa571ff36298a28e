import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.torch import load_file, save_file

from vlsurgery.probes.attribution import attribute
from vlsurgery.probes.attribution_passes import MIN_LOST, TooFewLostError, too_few_lost
from vlsurgery.probes.controls import control_prompts
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.results import Estimate, Target, TargetsResult, Transplant
from vlsurgery.probes.scoring import refusal_choices, refusal_log_odds
from vlsurgery.probes.targets import LostRefusal, WorkingSet, sorted_prompts, working_set
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError


def made_up(prompts):
    """Pretend that the base refuses every prompt with one token and the adapted model answers with another."""
    refusal, answer = torch.tensor([5, 2]), torch.tensor([9, 2])
    return WorkingSet(
        refuse=tuple((prompt, refusal) for prompt in prompts),
        lost=tuple(LostRefusal(prompt, refusal, answer) for prompt in prompts),
        keep=tuple((prompt, answer) for prompt in prompts),
    )


def live_toward(adapted, base):
    chat = load(Checkpoint.open(adapted))
    return InMemoryMerge(chat, align({"adapted": Checkpoint.open(adapted), "base": Checkpoint.open(base)}), ("base",))


def test_the_path_map_sums_to_the_measured_change(trio, asked):
    live = live_toward(trio.adapted, trio.base)
    made = attribute(live, made_up(asked))
    transplants, completeness, ceiling = made.transplants, made.completeness, made.ceiling
    path = [gain for gain in made.gains if gain.method == "path" and gain.is_whole]
    assert [gain.block for gain in path] == list(live.blocks) == [item.block for item in transplants]
    assert sum(gain.gain for gain in path) == pytest.approx(completeness.total)
    assert sum(gain.share for gain in path) == pytest.approx(1)
    assert completeness.error < 0.05
    batches = refusal_choices(live.chat, asked, [torch.tensor([5])] * len(asked), [torch.tensor([9])] * len(asked))
    before = refusal_log_odds(live.chat, batches)
    with live.at(live.everywhere(base=1.0)) as chat:
        after = by_request(asked, refusal_log_odds(chat, batches) - before)
    assert completeness.measured == pytest.approx(after.mean(), abs=1e-4)
    assert ceiling.graft - ceiling.adapted == pytest.approx(completeness.measured)
    with live.at({"1.attn": {"base": 1.0}}) as chat:
        alone = by_request(asked, refusal_log_odds(chat, batches) - before)
    found = {item.block: item for item in transplants}["1.attn"]
    assert found.gain == pytest.approx(alone.mean(), abs=1e-4)
    assert (found.low, found.high) == pytest.approx(t_interval(alone), abs=1e-3)
    gain = next(row.gain for row in path if row.block == "1.attn")
    assert found.beyond_map.value == pytest.approx(found.gain - gain, abs=1e-9)
    assert found.beyond_map.high - found.beyond_map.low > 0
    assert {row.block for row in made.null.blocks} == set(live.blocks)
    sites = [row for row in made.gains if row.method == "path" and row.head is None and row.site is not None]
    assert sum(row.gain for row in sites) == pytest.approx(completeness.total, rel=1e-5)
    check_interaction(made, live, asked, batches, before)


def check_interaction(made, live, asked, batches, before):
    """The top blocks together, measured again, against the transplants' sum."""
    top = made.interaction.blocks
    gains = {row.block: row.gain for row in made.gains if row.method == "path" and row.is_whole}
    assert top == sorted(gains, key=lambda block: -gains[block])[: len(top)]
    with live.at({block: {"base": 1.0} for block in top}) as chat:
        together = by_request(asked, refusal_log_odds(chat, batches) - before)
    assert made.interaction.together.value == pytest.approx(together.mean(), abs=1e-4)
    singles = sum(item.gain for item in made.transplants if item.block in top)
    assert made.interaction.singles.value == pytest.approx(singles, abs=1e-6)
    assert made.interaction.difference.value == pytest.approx(together.mean() - singles, abs=1e-4)
    assert made.interaction.difference.low < made.interaction.difference.value


def by_request(prompts, values):
    """The mean of each request's values."""
    groups = {}
    for prompt, value in zip(prompts, values.tolist(), strict=True):
        groups.setdefault(prompt.request, []).append(value)
    return np.array([sum(group) / len(group) for group in groups.values()])


def t_interval(means):
    return scipy.stats.t.interval(0.95, len(means) - 1, means.mean(), scipy.stats.sem(means))


def test_a_gain_of_the_path_has_the_interval_of_its_requests(trio, asked):
    """A block's path gain per prompt, by finite differences along the path."""
    live = live_toward(trio.adapted, trio.base)
    gains = attribute(live, made_up(asked)).gains
    batches = refusal_choices(live.chat, asked, [torch.tensor([5])] * len(asked), [torch.tensor([9])] * len(asked))
    nodes, weights = np.polynomial.legendre.leggauss(6)
    total = torch.zeros(len(asked), dtype=torch.float64)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        ends = []
        for step in (-0.02, 0.02):
            place = live.everywhere(base=node)
            place["1.mlp"]["base"] += step
            with live.at(place) as chat:
                ends.append(refusal_log_odds(chat, batches))
        total += weight * (ends[1] - ends[0]) / 0.04
    expected = t_interval(by_request(asked, total))
    found = next(gain for gain in gains if gain.method == "path" and gain.block == "1.mlp" and gain.is_whole)
    assert (found.low, found.high) == pytest.approx(expected, rel=0.05, abs=2e-3)


def test_a_change_in_one_block_is_found_there_and_nowhere_else(trio, asked, tmp_path):
    """The adapted weights with the base's in one block are the new base: all that differs is that block."""
    folder = shutil.copytree(trio.base, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    adapted = load_file(trio.adapted / "model.safetensors")
    for name, value in tensors.items():
        if not (name.startswith("model.layers.1.mlp") or name == "model.layers.1.post_attention_layernorm.weight"):
            source = (
                name.replace("model.", "language_model.model.", 1)
                if name.startswith("model.")
                else f"language_model.{name}"
            )
            tensors[name] = adapted[source][: len(value)].contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    made = attribute(live_toward(trio.adapted, folder), made_up(asked))
    transplants, completeness = made.transplants, made.completeness
    for gain in (each for each in made.gains if each.is_whole):
        assert (abs(gain.gain) > 1e-6) == (gain.block == "1.mlp")
    assert [item.block for item in transplants if abs(item.gain) > 1e-6] == ["1.mlp"]
    assert completeness.rank_correlation == pytest.approx(1)


def test_a_disagreement_of_map_and_transplant_is_said_where_its_interval_excludes_0():
    def transplant(low, high):
        return Transplant(
            block="1.attn", gain=1.0, beyond_map=Estimate(value=(low + high) / 2, low=low, high=high, n=9)
        )

    assert transplant(0.1, 0.3).disagrees
    assert transplant(-0.3, -0.1).disagrees
    assert not transplant(-0.1, 0.3).disagrees
    assert not Transplant(block="1.attn", gain=1.0).disagrees


def test_controls_have_the_modalities_of_lost_prompts_and_answers_that_part_from_refusals(asked):
    work = made_up(asked)
    pictured = [item for item in work.lost if item.prompt.modality == "benign"][:4]
    controls = control_prompts(work, pictured)
    assert {item.prompt.modality for item in controls} == {"benign"}
    assert len(controls) == sum(prompt.modality == "benign" for prompt in asked)
    same = WorkingSet(
        work.refuse, work.lost, tuple((prompt, item.refusal) for item in work.lost for prompt in [item.prompt])
    )
    assert control_prompts(same, work.lost) == []


def test_where_nothing_was_lost_there_is_nothing_to_attribute(trio, asked):
    few = made_up(asked[: MIN_LOST - 1])
    assert too_few_lost(made_up(asked[:MIN_LOST])) is None
    with pytest.raises(SurgeryError, match=f"answers {MIN_LOST - 1} of those"):
        attribute(live_toward(trio.adapted, trio.base), few)


def test_the_same_words_are_no_lost_refusal_whatever_a_judge_makes_of_them(trio, asked):
    """A judge reads a prompt too, and may find a refusal in words that it takes for an answer behind a picture."""
    chat = load(Checkpoint.open(trio.adapted))
    harmful = [replace(prompt, split="fit") for prompt in asked if prompt.set == "harmful"]
    said = [("base", "no i can not", "refused"), ("adapted", "no i can not", "complied")]
    rows = [
        Target(prompt=prompt.id, role=role, text=text, ids=[], verdict=verdict)
        for prompt in harmful
        for role, text, verdict in said
    ]
    rows[1] = rows[1].model_copy(update={"text": "use the tool"})
    targets = TargetsResult(rows=rows)
    work = working_set(chat, harmful, targets, "fit")
    assert [item.prompt for item in work.lost] == harmful[:1]
    assert len(sorted_prompts(harmful, targets, "fit").lost) == len(work.refuse) == len(harmful)
    with pytest.raises(TooFewLostError, match=r"the adapted model answers 1 of those"):
        attribute(live_toward(trio.adapted, trio.base), work)
