"""Choosing a direction in a model with a planted refusal: the choice of scoring all, at a fifth of the cost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlsurgery.probes.candidates import (
    COST_SHARE,
    MAX_PROMPTS,
    Candidates,
    Place,
    ScoredPrompts,
    ScoredSides,
    Sweep,
    _strongest,
    carries_refusals,
    choose_direction,
    direction_effect,
)
from vlsurgery.probes.contrasts import Directions, difference_of_means, is_harmful, separations
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.next_tokens import (
    next_divergence,
    next_states,
    next_tokens,
    opening_tokens,
    read_openings,
    refusal_openings,
)
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CandidateDirection, DirectionScores, DirectionSelection, Rate
from vlsurgery.surgery.checkpoint import Checkpoint

LAYERS, WIDTH, WRITER = 10, 32, 3
REFUSAL, ANSWER = "i cannot", "use the"


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    from vlsurgery.probes.specimens.miniature import prompts

    every = [prompt for prompt in prompts(0) if prompt.modality == "text"]
    chosen = []
    for split, count in (("fit", 12), ("select", 12), ("report", 32)):
        for set_ in ("harmful", "harmless"):
            chosen += [p for p in every if (p.split, p.set) == (split, set_)][:count]
    return chosen


@pytest.fixture(scope="module")
def chat(prompts: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A deep small model with a planted refusal: attention of layer WRITER spreads a mark that words of harmful
    requests alone carry, and the head turns it into the first word of a refusal. The rest is noise."""
    from vlsurgery.probes.specimens.miniature import chat, networks
    from vlsurgery.probes.specimens.miniature.config import SpecimenConfig

    folder, tokenizer = tmp_path_factory.mktemp("deep"), chat.tokenizer(sees=False)
    torch.manual_seed(0)
    model = networks.llama(SpecimenConfig(hidden=WIDTH, intermediate=48, layers=LAYERS, heads=4, tower_layers=1))
    mark, usual = torch.linalg.qr(torch.randn(WIDTH, 2))[0].T

    def words(harmful: bool) -> set[int]:
        texts = [prompt.text for prompt in prompts if is_harmful(prompt) == harmful]
        return {token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]}

    refuse, answer = (tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (REFUSAL, ANSWER))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
        model.get_input_embeddings().weight += usual
        model.get_input_embeddings().weight[sorted(words(True) - words(False))] += 4 * mark
        attention = model.model.layers[WRITER].self_attn
        attention.q_proj.weight.zero_()  # so that it reads all tokens alike
        attention.v_proj.weight[0] = mark
        attention.o_proj.weight[:, 0] = 2 * mark
        model.get_output_embeddings().weight[refuse] = 3 * mark
        model.get_output_embeddings().weight[answer] = usual
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(Checkpoint.open(Path(folder)))


def of(prompts: list[Prompt], split: str, harmful: bool | None = None) -> list[Prompt]:
    return [p for p in prompts if p.split == split and harmful in (None, is_harmful(p))]


@pytest.fixture(scope="module")
def directions(chat: ChatModel, prompts: list[Prompt]) -> Directions:
    return difference_of_means(chat, of(prompts, "fit"))


@pytest.fixture(scope="module")
def openings(chat: ChatModel, prompts: list[Prompt]) -> list[int]:
    refusals = [chat.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"]] * 3
    return refusal_openings(refusals, opening_tokens(chat, next_tokens(chat, of(prompts, "fit", harmful=False))))


Scored = list[tuple[float, float, float]]


def scorer(
    chat: ChatModel, prompts: list[Prompt], directions: Directions, openings: list[int]
) -> Callable[[ScoredPrompts, Sequence[Place]], Scored]:
    by_id = {prompt.id: prompt for prompt in prompts}

    def score(scored: ScoredPrompts, places: Sequence[Place]) -> Scored:
        sides = ScoredSides.of(
            chat, openings, [by_id[each] for each in scored.harmful], [by_id[each] for each in scored.harmless]
        )
        return [sides.scores(directions.values[place], place[1]) for place in places]

    return score


def chosen(
    chat: ChatModel, asked: list[Prompt], directions: Directions, openings: list[int], cost_share: float = COST_SHARE
) -> DirectionSelection:
    candidates = Candidates.of(chat, asked, directions, openings)
    return choose_direction(candidates, directions, scorer(chat, asked, directions, openings), cost_share)


@pytest.fixture(scope="module")
def pruned(chat: ChatModel, prompts: list[Prompt], directions: Directions, openings: list[int]) -> DirectionSelection:
    return chosen(chat, of(prompts, "select"), directions, openings)


def test_the_pruned_choice_is_that_of_scoring_everything_at_a_fifth_of_its_cost(
    chat: ChatModel, prompts: list[Prompt], directions: Directions, openings: list[int], pruned: DirectionSelection
) -> None:
    whole = chosen(chat, of(prompts, "select"), directions, openings, cost_share=1.0)
    assert pruned.choice.chosen is not None
    assert whole.choice.chosen is not None
    assert (pruned.choice.position, pruned.choice.layer) == (whole.choice.position, whole.choice.layer)
    assert pruned.choice.layer is not None
    assert pruned.choice.layer >= WRITER
    assert pruned.cost <= 0.2 < whole.cost
    assert pruned.reason is None
    assert pruned.shown is not None
    assert pruned.shown in pruned.candidates  # with the AUROC that led to it
    assert pruned.shown.model_dump(include=set(DirectionScores.model_fields)) == pruned.choice.chosen.model_dump()
    assert len(pruned.candidates) == len(whole.candidates) == len(directions.positions) * LAYERS
    scores = {(row.position, row.layer): row for row in whole.candidates}
    for row in pruned.candidates:
        assert (row.refusal_score is None) == (row.reason is not None)
        if row.refusal_score is not None:
            assert row == scores[row.position, row.layer].model_copy(
                update={"first_refusal_score": row.first_refusal_score}
            )
    late = {row.layer for row in whole.candidates if row.reason == "in the last fifth of the layers"}
    assert late == {8, 9}
    assert chat.tokenizer.decode(openings) == "i"
    assert pruned.refusal_tokens == ["i"]


def test_scores_are_those_of_hooks_written_by_hand(
    chat: ChatModel, prompts: list[Prompt], directions: Directions, openings: list[int]
) -> None:
    harmful, harmless = (of(prompts, "select", side)[:6] for side in (True, False))
    vector = directions.values[-1, 4].float()
    bypass, induction, divergence = ScoredSides.of(chat, openings, harmful, harmless).scores(
        directions.values[-1, 4], 4
    )

    def last(asked: list[Prompt]) -> Tensor:
        with torch.no_grad():
            rows = [chat.model(input_ids=each.ids[None]).logits[0, -1] for each in chat.encode(asked)]
        return torch.stack(rows).double().log_softmax(-1)

    def odds(logs: Tensor) -> float:
        refusing = logs[:, openings].exp().sum(-1)
        return float((refusing.log() - (1 - refusing).log()).mean())

    def without(hidden: Tensor) -> Tensor:
        return hidden - (hidden @ vector)[..., None] * vector / (vector @ vector)

    plain = last(harmless)
    handle = chat.blocks[4].register_forward_hook(lambda *passed: passed[2] + vector)
    assert induction == pytest.approx(odds(last(harmless)), abs=1e-4)
    handle.remove()
    handles = [block.register_forward_pre_hook(lambda _, args: (without(args[0]), *args[1:])) for block in chat.blocks]
    handles += [block.register_forward_hook(lambda *passed: without(passed[2])) for block in chat.blocks]
    ablated, moved = odds(last(harmful)), last(harmless)
    for handle in handles:
        handle.remove()
    assert bypass == pytest.approx(ablated, abs=1e-3)
    assert divergence == pytest.approx(float((plain.exp() * (plain - moved)).sum(-1).mean()), abs=1e-4)


def test_a_chosen_direction_carries_refusals_and_a_random_one_does_not(
    chat: ChatModel, prompts: list[Prompt], directions: Directions, openings: list[int], pruned: DirectionSelection
) -> None:
    found, shown = pruned.choice, of(prompts, "report")
    assert found.chosen is not None
    vector = directions.values[directions.positions.index(str(found.position)), found.chosen.layer]
    effect = direction_effect(chat, shown, vector, found.chosen.layer, openings)
    assert effect.causal
    assert effect.refused.rate == 1
    assert effect.refused.n == effect.accepted.n == MAX_PROMPTS
    assert effect.log_odds["ablated"] < effect.log_odds["ablated_random"]
    assert effect.log_odds["added"] > effect.log_odds["added_random"]
    drawn = torch.randn(len(vector), generator=torch.Generator().manual_seed(1))
    random = direction_effect(chat, shown, drawn * vector.norm() / drawn.norm(), found.chosen.layer, openings)
    assert not random.causal
    assert random.ablated_random == effect.ablated_random


def test_a_direction_carries_refusals_only_where_both_ways_beat_every_random_one() -> None:
    def told(
        ablated_random: float = 1.0, added_random: float = 0.0, requests: int = 30, **changed: float | None
    ) -> bool:
        shown = {"refused": 1.0, "ablated": 0.4, "accepted": 0.0, "added": 0.6, **changed}
        rates = {name: Rate(rate=value, n=40, requests=requests) for name, value in shown.items()}
        controls = {"ablated_random": [1.0, ablated_random], "added_random": [0.0, added_random]}
        return carries_refusals(**rates, **controls)

    assert told()
    assert told(ablated=0.5)
    assert not told(ablated=0.51)
    assert not told(ablated_random=0.4)
    assert not told(added_random=0.6)
    assert not told(added=0.0)
    assert not told(accepted=0.6)
    assert not told(refused=0.0, ablated=0.0)
    assert not told(refused=None)
    assert not told(requests=29)


def test_what_cannot_be_scored_has_a_reason(
    chat: ChatModel, prompts: list[Prompt], directions: Directions, openings: list[int]
) -> None:
    asked = of(prompts, "select")
    none = chosen(chat, asked, directions, [])
    assert none.reason == "the base's refusals begin as its answers do, so that the next token does not tell them apart"
    swapped = [replace(p, set="harmless" if is_harmful(p) else "harmful") for p in asked]
    few = chosen(chat, swapped, directions, openings)
    assert few.reason == (
        "by the next token the base refuses 0 harmful select prompts and answers 0 harmless ones; to score directions "
        "takes 4 of each"
    )
    for found in (none, few):
        assert found.choice.chosen is None
        assert found.cost == 0
        assert all(row.reason for row in found.candidates)
    known = Candidates.of(chat, asked, directions, openings)
    chance = replace(known, separated=replace(known.separated, null=1.0))
    lost = choose_direction(chance, directions, scorer(chat, asked, directions, openings))
    assert lost.choice.chosen is None
    assert {row.reason for row in lost.candidates} == {
        "separates no better than chance", "in the last fifth of the layers",
    }  # fmt: skip


def test_where_none_passes_the_strongest_that_induces_is_shown() -> None:
    def row(layer: int, refusal: float | None, steering: float | None) -> CandidateDirection:
        scores = {"refusal_score": refusal, "steering_score": steering, "kl_div_score": 3.0}
        return CandidateDirection(position="-1", layer=layer, auroc=1.0, **scores)

    rows = [row(0, None, None), row(1, -9.0, -1.0), row(2, -3.0, 0.5), row(3, -4.0, 0.1)]
    assert _strongest(rows) == rows[3]
    assert _strongest(rows[:2]) == rows[1]
    assert _strongest(rows[:1]) is None


def test_separation_is_chosen_at_the_last_instruction_token_with_its_ties(
    chat: ChatModel, prompts: list[Prompt], directions: Directions
) -> None:
    found = separations(chat, of(prompts, "select"), directions)
    at = directions.positions.index("instruction")
    assert found.best.position == "instruction"
    equal = [layer for layer in range(LAYERS) if found.aurocs[at, layer] == found.aurocs[at].max()]
    assert [found.best.layer, *found.best.ties] == equal
    assert found.best.null <= found.null
    assert Sweep.of(directions, found).open()


def test_openings_are_tokens_that_begin_refusals_more_often() -> None:
    assert refusal_openings([[5, 1], [5], [7]], [5, 8, 8, 8]) == [5, 7]
    assert refusal_openings([[5], [7]], [5, 5]) == [7]
    assert refusal_openings([[5], [5]], [5]) == []
    assert refusal_openings([[], [4]], []) == [4]
    assert refusal_openings([], [3]) == []


def test_log_odds_are_those_of_the_summed_probability(chat: ChatModel, prompts: list[Prompt]) -> None:
    asked = prompts[:7]
    batches = next_tokens(chat, asked, size=3)
    ids = torch.tensor([4, *opening_tokens(chat, next_tokens(chat, asked[:1]))])
    found, refused = read_openings(chat, batches, ids)
    for prompt, value, greedy in zip(chat.encode(asked), found, refused, strict=True):
        with torch.no_grad():
            shares = chat.model(input_ids=prompt.ids[None]).logits[0, -1].double().softmax(-1)
        refusing = shares[ids].sum()
        assert float(value) == pytest.approx(float(refusing.log() - (1 - refusing).log()), abs=1e-3)
        assert bool(greedy) == (int(shares.argmax()) in ids)
    assert next_divergence(chat, batches, next_states(chat, batches)) == pytest.approx(0, abs=1e-6)


def test_the_results_survive_their_file(pruned: DirectionSelection) -> None:
    assert DirectionSelection.model_validate_json(pruned.model_dump_json()) == pruned
