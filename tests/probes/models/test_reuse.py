"""What is not computed twice, or not kept, changes no bit of what comes out."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.models.forward import checkpointing, keeping_pictures, short_attention
from vlsurgery.probes.models.reuse import BlockInputs
from vlsurgery.probes.scoring import refusal_choices, refusal_log_odds
from vlsurgery.surgery.alignment import align


@pytest.fixture
def live(trio):
    checkpoints = {role: trio.checkpoints[role] for role in ("base", "adapted")}
    return InMemoryMerge(load(trio.checkpoints["adapted"]), align(checkpoints), ("base",))


@pytest.fixture
def batches(live, asked):
    return refusal_choices(live.chat, asked, [torch.tensor([5])] * len(asked), [torch.tensor([9])] * len(asked), 8)


def counted(module):
    calls = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_a_transplant_from_its_block_up_is_the_whole_pass(live, batches):
    below = BlockInputs(live.chat, [batch.inputs for batch in batches])
    assert below.works
    for block in ("0.attn", "0.mlp", "1.mlp", "2.attn"):
        layer = live.layer_of(block)
        assert layer == int(block[0])
        below.advance(layer)
        with live.at({block: {"base": 1.0}}) as chat:
            whole = refusal_log_odds(chat, batches)
            with below.beginning_there():
                assert torch.equal(refusal_log_odds(chat, batches), whole)
    assert "forward" not in vars(live.chat.model)
    assert all("forward" not in vars(block) for block in live.chat.blocks)
    with pytest.raises(ValueError, match="above 1"):
        below.advance(1)


def test_blocks_below_the_transplant_do_not_compute(live, batches):
    below = BlockInputs(live.chat, [batch.inputs for batch in batches])
    below.advance(2)
    calls = [counted(block.mlp) for block in live.chat.blocks]
    with below.beginning_there():
        refusal_log_odds(live.chat, batches)
    assert [len(each) for each in calls] == [0, 0, len(batches)]


def test_embedding_and_head_have_no_block_to_begin_at(live):
    assert [live.layer_of(block) for block in ("embed", "head", "norm")] == [None, None, None]


def test_a_class_that_hands_things_past_its_blocks_is_found_out(live, batches):
    past = []
    live.chat.blocks[0].mlp.register_forward_hook(lambda *given: past.append(given[-1]))
    live.chat.blocks[2].register_forward_hook(lambda *given: given[-1] + len(past))
    assert not BlockInputs(live.chat, [batch.inputs for batch in batches]).works


def test_pictures_are_read_once_and_logits_are_the_same(live, batches):
    plain = refusal_log_odds(live.chat, batches)
    calls = counted(live.chat.model.model.vision_tower)
    pictured = sum("pixel_values" in batch.inputs for batch in batches)
    with keeping_pictures(live.chat):
        for _ in range(3):
            assert torch.equal(refusal_log_odds(live.chat, batches), plain)
        assert len(calls) == pictured
        with live.at(live.everywhere(base=1.0)) as chat:
            grafted = refusal_log_odds(chat, batches)
    with live.at(live.everywhere(base=1.0)) as chat:
        assert torch.equal(refusal_log_odds(chat, batches), grafted)


def test_a_picture_is_read_in_the_same_way_whichever_pass_asks_first(live, batches):
    """Plain products of attention round otherwise than the fused ones, which whole answers are read with."""
    seen = {"tower": [], "block": []}

    def telling(name):
        def tell(*_):
            seen[name].append(torch.backends.cuda.flash_sdp_enabled())

        return tell

    live.chat.model.model.vision_tower.register_forward_pre_hook(telling("tower"))
    live.chat.blocks[0].register_forward_pre_hook(telling("block"))
    pictured = next(batch for batch in batches if "pixel_values" in batch.inputs)
    with keeping_pictures(live.chat), short_attention(live.chat, pictured.inputs):
        refusal_log_odds(live.chat, [pictured])
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert seen == {"tower": [True], "block": [False]}
    with sdpa_kernel(SDPBackend.MATH), keeping_pictures(live.chat):  # what was chosen before stays chosen
        refusal_log_odds(live.chat, [pictured])
    assert seen["tower"] == [True, False]


def test_without_room_pictures_are_read_every_time(live, batches):
    calls = counted(live.chat.model.model.vision_tower)
    with keeping_pictures(live.chat, nbytes=100):
        refusal_log_odds(live.chat, batches)
        once = len(calls)
        refusal_log_odds(live.chat, batches)
    assert len(calls) == 2 * once


def test_what_the_moving_embedding_makes_of_a_picture_is_not_kept(live, batches):
    tower = live.chat.model.model.vision_tower
    embed = live.chat.model.get_input_embeddings()

    def reads_words(*_):
        embed(torch.zeros(1, dtype=torch.long))

    tower.register_forward_pre_hook(reads_words)
    calls = counted(tower)
    with keeping_pictures(live.chat):
        refusal_log_odds(live.chat, batches)
        once = len(calls)
        refusal_log_odds(live.chat, batches)
    assert len(calls) == 2 * once


def test_gradients_with_activations_computed_again_are_the_same(live, batches, monkeypatch):
    def slopes():
        with live.differentiable():
            for batch in batches:
                with checkpointing(live.chat, batch.inputs):
                    batch.log_odds(live.chat).sum().backward()
            return live.gradient()

    plain = slopes()
    monkeypatch.setattr("vlsurgery.probes.models.forward.MAX_ACTIVATION_BYTES", 0)
    calls = counted(live.chat.blocks[0].mlp)
    again = slopes()
    assert len(calls) == 2 * len(batches)
    assert torch.equal(again, plain)
