"""Logits at picked tokens are those of the whole pass, whatever a class does with logits behind its head."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
)

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.models import load
from vlsurgery.probes.models.head import (
    answers_at_once,
    head_copy,
    head_of,
    head_states,
    headless,
    logits_beside,
    picked_logits,
)
from vlsurgery.surgery.errors import CheckpointError

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS = {
    "soft-capped": Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0),
    "scaled": CohereConfig(**SMALL, logit_scale=0.25),
    "divided": GraniteConfig(**SMALL, logits_scaling=8.0),
    "biased": PhiConfig(**SMALL),
    "tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "apart": LlamaConfig(**SMALL, tie_word_embeddings=False),
}
ROWS, COLUMNS = torch.tensor([0, 2, 2, 1]), torch.tensor([3, 0, 6, 6])


@pytest.fixture(params=CONFIGS, scope="module")
def chat(request):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval().requires_grad_(False)
    bias = model.get_output_embeddings().bias
    if bias is not None:
        bias.normal_()
    return SimpleNamespace(model=model, name=request.param)


@pytest.fixture
def inputs():
    ids = torch.randint(3, 50, (3, 7), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_picked_logits_are_those_of_the_whole_pass(chat, inputs):
    whole = chat.model(**inputs).logits
    torch.testing.assert_close(picked_logits(chat, inputs, ROWS, COLUMNS), whole[ROWS, COLUMNS].float())


def test_states_give_their_models_logits_again_after_its_head_has_changed(chat, inputs):
    expected = chat.model(**inputs).logits[ROWS, COLUMNS]
    states, weights = head_states(chat, inputs, ROWS, COLUMNS), head_copy(chat)
    before = {name: value.clone() for name, value in chat.model.state_dict().items()}
    try:
        for value in head_of(chat).parameters():
            value.mul_(1.5)
        moved = chat.model(**inputs).logits[ROWS, COLUMNS]
        ours, theirs = logits_beside(chat, inputs, ROWS, COLUMNS, states, weights)
        assert not torch.allclose(moved, expected)
        torch.testing.assert_close(theirs, expected.float())
        torch.testing.assert_close(ours, moved.float())
    finally:
        chat.model.load_state_dict(before)


def test_without_a_head_no_logit_is_made_and_the_hooks_are_gone_afterwards(chat, inputs):
    with headless(chat):
        assert chat.model(**inputs).logits.shape[1] == 0
    assert chat.model(**inputs).logits.shape == (3, 7, 50)
    assert not head_of(chat)._forward_pre_hooks
    assert not head_of(chat)._forward_hooks


def test_gradients_of_picked_logits_are_those_of_whole_ones(chat, inputs):
    parameter = next(chat.model.parameters()).requires_grad_(True)
    try:
        (whole,) = torch.autograd.grad(chat.model(**inputs).logits[ROWS, COLUMNS].logsumexp(-1).sum(), parameter)
        (ours,) = torch.autograd.grad(picked_logits(chat, inputs, ROWS, COLUMNS).logsumexp(-1).sum(), parameter)
        torch.testing.assert_close(ours, whole)
    finally:
        parameter.requires_grad_(False)


def test_large_vocabularies_and_long_answers_make_small_batches(monkeypatch):
    model = SimpleNamespace(get_output_embeddings=lambda: nn.Linear(1, 1000))
    chat = SimpleNamespace(name="", model=model, device=torch.device("cpu"))
    monkeypatch.setattr("vlsurgery.probes.models.head.MAX_LOGIT_BYTES", {"cpu": 4 * 1000 * 24})
    assert answers_at_once(chat, [torch.zeros(1)], 32) == 24
    assert answers_at_once(chat, [torch.zeros(8), torch.zeros(2)], 32) == 3
    assert answers_at_once(chat, [torch.zeros(100)], 32) == 1
    assert answers_at_once(chat, [], 32) == 24


def test_a_class_without_a_head_is_named():
    chat = SimpleNamespace(name="some/model", model=SimpleNamespace(get_output_embeddings=lambda: None))
    with pytest.raises(CheckpointError, match="some/model: SimpleNamespace names no output head"):
        head_of(chat)


def test_a_loaded_models_head_reads_no_slice_of_a_batch(trio, asked):
    """torch copies the head's weight for every row of a slice that takes no gradients."""
    chat = load(trio.checkpoints["adapted"])
    read = []
    head_of(chat).register_forward_hook(lambda module, args, output: read.append(args[0]))  # noqa: ARG005
    complete(chat, [prompt for prompt in asked if prompt.image is None][:5], "asking", tokens=3)
    assert max(len(states) for states in read) > 1  # a batch, of which generation picks the last tokens
    assert all(states.is_contiguous() for states in read)
