"""Interventions by their laws, on tiny models with random weights; hooks by hand and other models are the oracle."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

import vlsurgery
from vlsurgery.probes.activations import capture
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.models.taps import _TAPS
from vlsurgery.surgery.errors import SurgeryError

WIDTH, LAYERS, HEADS = 32, 3, 4
SITES = ("input", "residual", "attention", "mlp")


def llama(seed: int, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = LlamaConfig(**{**sizes, "vocab_size": 50, "num_key_value_heads": 2, "initializer_range": 0.2, **changes})
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return llama(0)


@pytest.fixture(scope="module")
def other() -> LlamaForCausalLM:
    return llama(1)


@pytest.fixture(scope="module")
def vector() -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Two prompts of 7 and 5 tokens, padded on the right."""
    ids = torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(4))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.fixture(autouse=True)
def _nothing_is_left(model: LlamaForCausalLM, other: LlamaForCausalLM) -> Iterator[None]:
    def hooks(each: nn.Module) -> list[Any]:
        return [dict(found) for part in each.modules() for found in (part._forward_hooks, part._forward_pre_hooks)]

    before = hooks(model), hooks(other), [weight.clone() for weight in (*model.parameters(), *other.parameters())]
    yield
    assert (hooks(model), hooks(other)) == before[:2]
    assert all(map(torch.equal, (*model.parameters(), *other.parameters()), before[2]))
    assert not any(_TAPS.values())


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The logits at real tokens."""
    found: Tensor = model(**inputs).logits
    return found[inputs["attention_mask"].bool()]


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


PLACES: list[dict[str, Any]] = [
    {}, {"layers": 1}, {"layers": [0, 2], "sites": "attention"}, {"sites": ["mlp"]}, {"heads": [1, 3]},
    {"heads": [0], "layers": 2, "positions": -1}, {"sites": "residual", "positions": [0, -2]},
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_ablating_twice_is_ablating_once(model: Any, vector: Tensor, inputs: Any, place: dict[str, Any]) -> None:
    with vlsurgery.ablate(model, vector, **place):
        once = logits(model, inputs)
        with vlsurgery.ablate(model, -3 * vector, **place):
            twice = logits(model, inputs)
    close(twice, once)
    assert not torch.allclose(once, logits(model, inputs), atol=1e-3)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adding_nothing_changes_no_bit(vector: Tensor, inputs: Any, place: dict[str, Any], dtype: torch.dtype) -> None:
    model = llama(0).to(dtype)
    before = logits(model, inputs)
    for nothing in ((vector, 0.0), (torch.zeros(WIDTH), 1.0)):
        with vlsurgery.add(model, *nothing, **place):
            assert torch.equal(logits(model, inputs), before)
    with vlsurgery.add(model, vector, **place):
        assert not torch.equal(logits(model, inputs), before)


def test_nothing_along_the_direction_is_left_anywhere(vector: Tensor, inputs: Any) -> None:
    model = llama(0)  # of its own, as transformers' recording of hidden states stays hooked
    several = torch.stack([vector, vector + torch.ones(WIDTH)])
    for rows in (vector, several):
        with vlsurgery.ablate(model, rows), vlsurgery.record(model, sites=SITES) as states:
            model(**inputs, output_hidden_states=True)
        assert len(states.passes[0]) == LAYERS * len(SITES)
        for hidden in states.passes[0].values():
            assert (hidden @ torch.atleast_2d(rows).T).abs().max() < 1e-4
    with vlsurgery.ablate(model, vector):
        shown = model(**inputs, output_hidden_states=True).hidden_states[:-1]  # the last is behind the final norm
    assert all((hidden @ vector).abs().max() < 1e-4 for hidden in shown)


def test_rows_that_span_one_direction_take_out_no_other(model: Any, vector: Tensor, inputs: Any) -> None:
    with vlsurgery.ablate(model, vector):
        once = logits(model, inputs)
    for rows in ([vector, vector], [vector, -3 * vector, 0.5 * vector]):
        with vlsurgery.ablate(model, torch.stack(rows)):
            torch.testing.assert_close(logits(model, inputs), once)


def test_it_equals_hooks_written_by_hand(model: Any, vector: Tensor, inputs: Any) -> None:
    unit = vector / vector.norm()

    def without(module: nn.Module, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = hidden - (hidden @ unit)[..., None] * unit
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def before(module: nn.Module, args: Any) -> Any:
        return (args[0] - (args[0] @ unit)[..., None] * unit, *args[1:])

    layers = model.model.layers
    with ExitStack() as stack:  # as Arditi et al. have it: block inputs, attention and MLP outputs
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(before).remove)
            stack.callback(layer.self_attn.register_forward_hook(without).remove)
            stack.callback(layer.mlp.register_forward_hook(without).remove)
        expected = logits(model, inputs)
    with vlsurgery.ablate(model, vector, sites=("input", "attention", "mlp")):
        close(logits(model, inputs), expected)
    with vlsurgery.ablate(model, vector):
        close(logits(model, inputs), expected)

    handle = layers[1].register_forward_hook(lambda *passed: passed[2] + 2 * vector)
    expected = logits(model, inputs)
    handle.remove()
    with vlsurgery.add(model, vector, 2.0, layers=1):
        close(logits(model, inputs), expected)
    with vlsurgery.add(model, vector, 2.0, layers=2, sites="input"):
        close(logits(model, inputs), expected)


def test_single_heads_are_columns_of_the_matrix_behind_them(model: Any, vector: Tensor, inputs: Any) -> None:
    """A head that is taken out of the matrix's columns adds nothing; one that is ablated adds all but the direction."""
    matrix, unit = model.model.layers[1].self_attn.o_proj, vector / vector.norm()
    size = WIDTH // HEADS
    kept = matrix.weight.detach().clone()
    columns = kept[:, 2 * size : 3 * size]
    matrix.weight.data = kept.clone()
    matrix.weight.data[:, 2 * size : 3 * size] = columns - torch.outer(unit, unit @ columns)
    expected = logits(model, inputs)
    matrix.weight.data = kept
    with vlsurgery.ablate(model, vector, layers=1, heads=[2]):
        close(logits(model, inputs), expected)
    with vlsurgery.add(model, vector, layers=1, heads=[2]):
        added = logits(model, inputs)
    with vlsurgery.add(model, vector, layers=1, sites="attention"):
        close(logits(model, inputs), added)
    with vlsurgery.record(model, layers=1, heads=range(HEADS)) as heads:
        model(**inputs)
    with vlsurgery.record(model, layers=1, sites="attention") as whole:
        model(**inputs)
    close(heads.states(1, "heads").sum(-2), whole.states(1, "attention"))


def test_of_nested_contexts_the_outer_one_acts_first(model: Any, vector: Tensor, inputs: Any) -> None:
    for place in ({"sites": "attention"}, {"heads": [0, 1]}, {"sites": "residual"}):
        with vlsurgery.ablate(model, vector, **place):
            ablated = logits(model, inputs)
        with vlsurgery.add(model, vector, **place), vlsurgery.ablate(model, vector, **place):
            close(logits(model, inputs), ablated)
        with vlsurgery.ablate(model, vector, **place), vlsurgery.add(model, vector, **place):
            assert not torch.allclose(logits(model, inputs), ablated, atol=1e-3)


def test_patching_everything_gives_the_other_model(model: Any, other: Any, inputs: Any) -> None:
    expected = logits(other, inputs)
    ways: list[dict[str, Any]] = [{}, {"layers": LAYERS - 1}, {"sites": ["input", "attention", "mlp"]}]
    with vlsurgery.transplant(model, other, blocks=["embed", "head", "norm"]):
        for way in ways:
            with vlsurgery.patch(model, other, **way):
                close(logits(model, inputs), expected)
        with vlsurgery.patch(model, other, sites="mlp"), vlsurgery.patch(model, other, heads=range(HEADS)):
            close(logits(model, inputs), expected)
    with vlsurgery.record(other, sites=SITES) as theirs:
        other(**inputs)
    with vlsurgery.patch(model, other), vlsurgery.record(model) as ours:
        model(**inputs)
    for point, states in ours.passes[0].items():
        assert torch.equal(states, theirs.passes[0][point])


def test_patching_with_its_own_states_changes_nothing(model: Any, inputs: Any) -> None:
    before = logits(model, inputs)
    with vlsurgery.record(model, sites=SITES) as own:
        model(**inputs)
        model(**inputs)
    with vlsurgery.patch(model, own, sites=SITES):
        assert torch.equal(logits(model, inputs), before)
        assert torch.equal(logits(model, inputs), before)
        with pytest.raises(SurgeryError, match="runs more often than the 2 passes of the recording"):
            model(**inputs)
    with vlsurgery.record(model, heads=[1, 2]) as heads:
        model(**inputs)
    with vlsurgery.patch(model, heads, heads=[2]):
        assert torch.equal(logits(model, inputs), before)


def test_a_patched_token_is_the_sources_and_others_are_the_models(model: Any, other: Any, inputs: Any) -> None:
    with vlsurgery.record(other, layers=1) as theirs:
        other(**inputs)
    with vlsurgery.record(model, layers=1) as mine:
        model(**inputs)
    with vlsurgery.patch(model, other, layers=1, positions=-1), vlsurgery.record(model, layers=1) as mixed:
        model(**inputs)
    for row, last in enumerate((6, 4)):
        assert torch.equal(mixed.states(1)[row, last], theirs.states(1)[row, last])
        rest = [at for at in range(7) if at != last]
        assert torch.equal(mixed.states(1)[row, rest], mine.states(1)[row, rest])


def test_positions_count_real_tokens_whatever_the_padding(model: Any, vector: Tensor, inputs: Any) -> None:
    left = {name: torch.stack([value[0], value[1].roll(2)]) for name, value in inputs.items()}
    for positions in (-1, 0, [1, -2]):
        with vlsurgery.add(model, 5 * vector, positions=positions):
            whole = [logits(model, padded) for padded in (inputs, left)]
            alone = [
                logits(model, {name: value[row : row + 1, :length] for name, value in inputs.items()})
                for row, length in enumerate((7, 5))
            ]
        for found in whole:
            close(found, torch.cat(alone))


def test_generating_with_a_cache_is_generating_without(model: Any, vector: Tensor) -> None:
    ids = {"input_ids": torch.tensor([[5, 9, 13, 22]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    plain = model.generate(**ids, **settings)
    for positions in (None, [0], [1], -1, [0, -1]):
        with vlsurgery.add(model, 8 * vector, layers=1, positions=positions):
            cached = model.generate(**ids, **settings)
            assert positions == -1 or torch.equal(cached, model.generate(**ids, **settings, use_cache=False))
        assert not torch.equal(cached, plain)


def test_generating_from_patched_states_takes_whole_prompts(model: Any, other: Any) -> None:
    ids = {"input_ids": torch.tensor([[5, 9, 13, 22]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with vlsurgery.transplant(model, other, blocks=["head", "norm"]), vlsurgery.patch(model, other):
        written = model.generate(**ids, **settings, use_cache=False)
        with pytest.raises(SurgeryError, match="use_cache=False"):
            model.generate(**ids, **settings)
    assert torch.equal(written, other.generate(**ids, **settings))


def test_transplanting_everything_gives_the_other_model(model: Any, other: Any, inputs: Any) -> None:
    with vlsurgery.transplant(model, other):
        assert torch.equal(logits(model, inputs), logits(other, inputs))
    with vlsurgery.transplant(model, other, layers=1), vlsurgery.transplant(model, other, blocks=["0.mlp"]):
        mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
        moved = {name for name, value in mine.items() if torch.equal(value, theirs[name])} - {"model.norm.weight"}
        assert moved == {
            name for name in mine if name.startswith(("model.layers.1.", "model.layers.0.mlp.")) or "layernorm" in name
        }


def test_a_donor_in_another_dtype_with_fewer_tokens_leaves_new_rows(model: Any) -> None:
    donor = llama(2, vocab_size=40).to(torch.bfloat16)
    with vlsurgery.transplant(model, donor):
        table = model.get_input_embeddings().weight
        assert torch.equal(table[:40], donor.get_input_embeddings().weight.float())
        assert table.shape == (50, WIDTH)
        assert table.dtype == torch.float32


def test_a_tied_head_goes_with_the_embedding(model: Any, other: Any, inputs: Any) -> None:
    tied = llama(5, tie_word_embeddings=True)
    with vlsurgery.transplant(model, tied):
        close(logits(model, inputs), logits(tied, inputs))
    with (
        pytest.raises(SurgeryError, match="the model's head is tied to its embedding"),
        vlsurgery.transplant(tied, other),
    ):
        pass
    with pytest.raises(SurgeryError, match="no block 'head'"), vlsurgery.transplant(tied, other, blocks=["head"]):
        pass


def test_everything_is_restored_when_the_body_fails(model: Any, other: Any, vector: Tensor, inputs: Any) -> None:
    before = logits(model, inputs)
    contexts: list[Callable[[], Any]] = [
        lambda: vlsurgery.ablate(model, vector),
        lambda: vlsurgery.add(model, vector, heads=[0]),
        lambda: vlsurgery.patch(model, other),
        lambda: vlsurgery.record(model),
        lambda: vlsurgery.transplant(model, other),
    ]
    for make in contexts:
        with pytest.raises(KeyError), make():
            raise KeyError
        assert torch.equal(logits(model, inputs), before)


def test_a_hook_that_did_not_take_hold_is_an_error(model: Any, vector: Tensor, inputs: Any) -> None:
    """As where a wrapper computes a layer without its modules."""
    layer = model.model.layers[1]
    for sites in ("attention", "mlp"):
        layer.forward = lambda hidden_states, **_: hidden_states
        message = f"ran without 1 of the 3 places .* is {sites} of layer 1"
        try:
            with pytest.raises(SurgeryError, match=message), vlsurgery.add(model, vector, sites=sites):
                model(**inputs)
        finally:
            del layer.forward


def test_inputs_and_directions_are_not_changed(model: Any, other: Any, vector: Tensor, inputs: Any) -> None:
    direction = vlsurgery.directions.fit(torch.randn(9, WIDTH) + vector, torch.randn(9, WIDTH))
    before = vector.clone(), direction.units.clone(), {name: value.clone() for name, value in inputs.items()}
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    kept = embedded.clone()
    with vlsurgery.ablate(model, direction), vlsurgery.add(model, vector), vlsurgery.patch(model, other, positions=0):
        model(**inputs)
    with vlsurgery.ablate(model, vector):
        model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"])
    assert torch.equal(vector, before[0])
    assert torch.equal(direction.units, before[1])
    assert torch.equal(embedded, kept)
    assert all(torch.equal(value, before[2][name]) for name, value in inputs.items())


def test_a_fitted_direction_is_added_as_long_as_the_means_lie_apart(model: Any, inputs: Any, vector: Tensor) -> None:
    harmful, harmless = torch.randn(9, WIDTH) + vector, torch.randn(9, WIDTH)
    direction = vlsurgery.directions.fit(harmful, harmless)
    with vlsurgery.add(model, direction, layers=0):
        fitted = logits(model, inputs)
    with vlsurgery.add(model, harmful.mean(0) - harmless.mean(0), layers=0):
        close(fitted, logits(model, inputs))


@pytest.mark.parametrize("family", ["gemma2", "opt"])
def test_other_families_have_the_same_places(family: str, vector: Tensor, inputs: Any) -> None:
    torch.manual_seed(0)
    made: Any
    if family == "gemma2":
        sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        made = Gemma2ForCausalLM(Gemma2Config(**sizes, vocab_size=50, num_key_value_heads=2, head_dim=8))
    else:
        sizes = {"hidden_size": WIDTH, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        made = OPTForCausalLM(OPTConfig(**sizes, vocab_size=50, word_embed_proj_dim=WIDTH))
    made = made.eval().requires_grad_(False)
    before = logits(made, inputs)
    with vlsurgery.ablate(made, vector), vlsurgery.record(made, sites=SITES) as states:
        ablated = logits(made, inputs)
    assert len(states.passes[0]) == 2 * len(SITES)
    assert all((hidden @ vector).abs().max() < 1e-4 for hidden in states.passes[0].values())
    for place in ({"heads": [1]}, {"sites": "mlp", "positions": -1}):
        with vlsurgery.ablate(made, vector, **place):
            assert not torch.equal(logits(made, inputs), before)
    assert not torch.allclose(ablated, before, atol=1e-4)
    assert torch.equal(logits(made, inputs), before)


@pytest.fixture(scope="module")
def seeing(trio: Any) -> ChatModel:
    return load(trio.checkpoints["adapted"])


def test_image_and_text_tokens_are_all_tokens(seeing: ChatModel, asked: Any, vector: Tensor) -> None:
    """Adding at both kinds, one after the other, is adding everywhere; without a picture there is no image token."""
    encoded = seeing.encode(asked)

    def states(*contexts: Any) -> Tensor:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            parts = {at: v for got in capture(seeing, encoded) for at, v in zip(got.index, got.values, strict=True)}
        return torch.stack([parts[at] for at in range(len(asked))])

    def adding(**place: Any) -> Any:
        return vlsurgery.add(seeing, vector, layers=0, **place)

    plain, image, text = states(nullcontext()), states(adding(tokens="image")), states(adding(tokens="text"))
    close(states(adding(tokens="image"), adding(tokens="text")), states(adding()))
    pictured = torch.tensor([prompt.image is not None for prompt in asked])
    assert torch.equal(image[~pictured], plain[~pictured])
    assert (image[pictured] - plain[pictured]).abs().amax((1, 3))[:, 1:].gt(1e-3).all()
    close(text[~pictured], states(adding())[~pictured])
    # at layer 0 itself only the captured tokens, which are text, were added to
    assert torch.equal(image[:, :, 0], plain[:, :, 0])


def test_a_batch_of_n_is_n_singles(seeing: ChatModel, asked: Any, vector: Tensor) -> None:
    places: list[dict[str, Any]] = [{"tokens": "image"}, {"positions": [2, -3]}, {"heads": [1], "tokens": "text"}]
    for place in places:
        with vlsurgery.add(seeing, 3 * vector, **place):
            whole = {}
            for got in capture(seeing, seeing.encode(asked)):
                whole |= dict(zip(got.index, got.values, strict=True))
            for at in (0, 14, 29):
                single = next(iter(capture(seeing, seeing.encode([asked[at]])))).values[0]
                torch.testing.assert_close(whole[at], single, rtol=1e-4, atol=1e-4)


def test_the_whole_base_in_the_adapted_model_reads_text_as_the_base_does(trio: Any, asked: Any) -> None:
    base, adapted = load(trio.checkpoints["base"]), load(trio.checkpoints["adapted"])
    texts = [prompt for prompt in asked if prompt.image is None]
    expected = next(iter(capture(base, base.encode(texts)))).values
    for way in (vlsurgery.transplant(adapted, base), vlsurgery.patch(adapted, base)):
        with way:
            found = next(iter(capture(adapted, adapted.encode(texts)))).values
        close(found, expected)
    with vlsurgery.patch(adapted, base), pytest.raises(SurgeryError, match="takes no pixel_values"):
        next(iter(capture(adapted, adapted.encode([each for each in asked if each.image is not None]))))


class Given(NamedTuple):
    """A model, another one, and a direction."""

    m: Any
    o: Any
    v: Tensor


FAULTS: dict[str, Callable[[Given], Any]] = {
    "takes a model in memory, of transformers or a ChatModel, not str": lambda g: vlsurgery.ablate("llama/", g.v),
    "the model has layers 0 to 2, but 3 was asked for": lambda g: vlsurgery.add(g.m, g.v, layers=[0, 3]),
    "layers 0 to 2, but -1 was": lambda g: vlsurgery.transplant(g.m, g.o, layers=-1),
    "layers: give one at least": lambda g: vlsurgery.add(g.m, g.v, layers=[]),
    "choose among input, residual, attention, mlp, not 'head'": lambda g: vlsurgery.add(g.m, g.v, sites="head"),
    "the model has heads 0 to 3, but 4 was asked for": lambda g: vlsurgery.ablate(g.m, g.v, heads=[4]),
    "give each head once": lambda g: vlsurgery.ablate(g.m, g.v, heads=[1, 1]),
    "tokens must be 'image' or 'text'": lambda g: vlsurgery.ablate(g.m, g.v, tokens="picture"),
    "no token that stands for a picture": lambda g: vlsurgery.ablate(g.m, g.v, tokens="image"),
    "the direction is [31], but the model's hidden states take [32]": lambda g: vlsurgery.add(g.m, g.v[1:]),
    "the direction is [2, 32], but": lambda g: vlsurgery.add(g.m, torch.stack([g.v, g.v])),
    "the direction holds NaN": lambda g: vlsurgery.ablate(g.m, g.v / 0),
    "the direction has length 0": lambda g: vlsurgery.ablate(g.m, 0 * g.v),
    "the source is the model itself": lambda g: vlsurgery.patch(g.m, g.m),
    "the source has 1 layers and the model 3": lambda g: vlsurgery.patch(g.m, llama(2, num_hidden_layers=1)),
    "no block '7.attn'": lambda g: vlsurgery.transplant(g.m, g.o, blocks=["7.attn"]),
    "give layers or blocks": lambda g: vlsurgery.transplant(g.m, g.o, blocks=["head"], layers=1),
    "text.0.mlp.gate is [48, 32] in the model and [40, 32]": lambda g: vlsurgery.transplant(
        g.m, llama(2, intermediate_size=40)
    ),
    "the donor has no text.2.attn.q": lambda g: vlsurgery.transplant(g.m, llama(2, num_hidden_layers=2)),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_be_done_is_told_before_anything_runs(model: Any, other: Any, vector: Tensor, message: str) -> None:
    with pytest.raises(SurgeryError, match=re.escape(message)), FAULTS[message](Given(model, other, vector)):
        pass


def test_faults_that_only_a_run_shows_are_told(model: Any, other: Any, vector: Tensor, inputs: Any) -> None:
    with vlsurgery.record(other) as short:
        other(**{name: value[:1] for name, value in inputs.items()})
    with vlsurgery.patch(model, short), pytest.raises(SurgeryError, match=re.escape("[2, 7, 32] in the model and [1")):
        model(**inputs)
    with vlsurgery.record(other, layers=0) as one:
        other(**inputs)
    with (
        vlsurgery.patch(model, one, layers=1),
        pytest.raises(SurgeryError, match="no states for the residual stream of"),
    ):
        model(**inputs)
    with pytest.raises(SurgeryError, match="head 2 was not recorded"), vlsurgery.patch(model, one, heads=[2]):
        pass
    with vlsurgery.add(model, vector, positions=0), pytest.raises(SurgeryError, match="needs the whole model to run"):
        model.model(**inputs)
    with vlsurgery.record(model) as states, pytest.raises(SurgeryError, match="Call the model"):
        model.model(**inputs)
    with pytest.raises(SurgeryError, match="has not run yet"):
        states.states(0)


def test_the_readmes_lines_run(inputs: Any) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (lines,) = (block for block in blocks if "directions.fit(" in block)
    deep = [llama(seed, num_hidden_layers=16) for seed in (0, 1)]
    scores = {"refusal_score": -1.0, "steering_score": 1.0, "kl_div_score": 0.0}
    given = {
        "vlsurgery": vlsurgery,
        "model": deep[0],
        "base": deep[1],
        "inputs": inputs,
        "harmful": torch.randn(9, WIDTH),
        "harmless": torch.randn(9, WIDTH),
        "rows": [{"position": -1, "layer": 14, **scores}],
    }
    exec(lines, given)
    assert given["chosen"].layer == 14
