"""Layers put back one at a time: the gain of each prompt is that of a model whose weights were put together by hand."""

from dataclasses import replace

import pytest
import torch

from vlsurgery.probes.attribution_passes import lost_choices
from vlsurgery.probes.layer_gains import MAX_PROMPTS, layer_gains
from vlsurgery.probes.models import Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CompletionRecord, LayersResult, Verdict
from vlsurgery.probes.scoring import refusal_log_odds
from vlsurgery.probes.targets import LostRefusal, token_ids
from vlsurgery.surgery.alignment import align

REFUSAL, ANSWER = "i can not help with that", "use the hammer in the kitchen"


def said(prompts: list[Prompt], roles: dict[str, str], kept: str = "") -> list[CompletionRecord]:
    """What each role says; base refuses and adapted complies, but on the prompt with the id `kept`."""
    made = []
    for role, text in roles.items():
        for prompt in prompts:
            if role == "base" and prompt.modality != "text":
                continue
            refuses = text == REFUSAL or prompt.id == kept
            verdict = Verdict(label="refused" if refuses else "complied", kind="refusal", reason="")
            made.append(
                CompletionRecord(
                    role=role, id=prompt.id, request=prompt.request, set=prompt.set, modality=prompt.modality,
                    prompt=prompt.text, text=text, tokens=6, cut=False, verdicts={"form": verdict}, prompts_digest="",
                )
            )  # fmt: skip
    return made


@pytest.fixture
def harmful(asked: list[Prompt]) -> list[Prompt]:
    return [replace(prompt, split="report") for prompt in asked if prompt.set == "harmful"]


def measured(trio, prompts: list[Prompt], records: list[CompletionRecord]) -> LayersResult:
    checkpoints = {role: each for role, each in trio.checkpoints.items() if role != "safety"}
    return layer_gains(align(checkpoints), prompts, records)


def test_gains_are_those_of_weights_put_together_by_hand(trio, harmful: list[Prompt]) -> None:
    found = measured(trio, harmful, said(harmful, {"base": REFUSAL, "adapted": ANSWER}))
    assert found.prompts == [prompt.id for prompt in harmful]
    assert [row.layer for row in found.records] == [0, 1, 2]

    chat = Loader().load(trio.checkpoints["adapted"])
    refusal, answer = (token_ids(chat, text, ()) for text in (REFUSAL, ANSWER))
    batches = lost_choices(chat, [LostRefusal(prompt, refusal, answer) for prompt in harmful])
    start = refusal_log_odds(chat, batches)
    base = Loader().load(trio.checkpoints["base"]).model.state_dict()
    own = {name: value.clone() for name, value in chat.model.state_dict().items()}
    for row in found.records:
        part = f"model.layers.{row.layer}."
        moved = {f"model.language_model.{n.removeprefix('model.')}": v for n, v in base.items() if n.startswith(part)}
        assert len(moved) == 9
        chat.model.load_state_dict({**own, **moved})
        assert torch.tensor(row.gains) == pytest.approx((refusal_log_odds(chat, batches) - start).float(), abs=1e-4)
        assert max(map(abs, row.gains)) > 1e-3


def test_only_lost_refusals_of_harmful_requests_are_measured(trio, asked: list[Prompt], harmful: list[Prompt]) -> None:
    others = [replace(prompt, split="report") for prompt in asked if prompt.set != "harmful"]
    records = said([*harmful, *others], {"base": REFUSAL, "adapted": ANSWER}, kept=harmful[0].id)
    found = measured(trio, [*harmful, *others], records)
    assert found.prompts == [prompt.id for prompt in harmful[1:]]
    assert found.requests == [prompt.request for prompt in harmful[1:]]
    assert len(found.prompts) <= MAX_PROMPTS


def test_nothing_lost_has_a_reason_and_no_rows(trio, harmful: list[Prompt]) -> None:
    found = measured(trio, harmful, said(harmful, {"base": REFUSAL, "adapted": REFUSAL}))
    assert (found.records, found.prompts) == ([], [])
    assert "answers nothing that the base refuses" in found.reason


def test_completions_that_begin_alike_to_the_end_are_left_out(trio, harmful: list[Prompt]) -> None:
    """They have no token at which they part, so no log-odds."""
    found = measured(trio, harmful, said(harmful, {"base": REFUSAL, "adapted": REFUSAL.removesuffix(" with that")}))
    assert found.records == []
