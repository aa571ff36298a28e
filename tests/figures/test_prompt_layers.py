"""One prompt, layer by layer: scales by their laws, and what is drawn."""

import pytest

from vlsurgery.figures import prompt_layers
from vlsurgery.probes.results import LayerSpread, PromptReading


def spread(mean: float, half: float = 1.0) -> LayerSpread:
    return LayerSpread(mean=mean, low=mean - half, high=mean + half)


def reading(role: str, along: list[float], zero: list[float], one: list[float], **more: object) -> PromptReading:
    return PromptReading(
        role=role, direction="the direction of base", along=along, odds=[-3.0, 2.0],
        harmless_along=[spread(each) for each in zero], harmful_along=[spread(each) for each in one], text="i cannot",
        cut=False, **more,
    )  # fmt: skip


def test_harmless_is_nought_and_harmful_one_at_every_layer_of_every_model() -> None:
    zero, one = [2.0, -40.0], [6.0, -140.0]  # the second layer's direction points the other way here
    for along, wanted in ((zero, 0.0), (one, 1.0), ([4.0, -90.0], 0.5), ([10.0, -240.0], 2.0)):
        info = prompt_layers.compute([reading("base", along, zero, one)])
        assert info.scaled
        assert info.models[0].along == pytest.approx((wanted, wanted))
        assert info.models[0].raw == tuple(along)
    spreads = info.models[0].along_spread
    assert [each.mean for each in spreads["harmless"]] == [0.0, 0.0]
    assert [each.mean for each in spreads["harmful"]] == [1.0, 1.0]
    assert all(each.low < each.mean < each.high for each in (*spreads["harmful"], *spreads["harmless"]))
    assert [each.high - each.low for each in spreads["harmful"]] == pytest.approx([2 / 4, 2 / 100])


def test_a_layer_where_both_means_coincide_has_no_scale() -> None:
    (model,) = prompt_layers.compute([reading("base", [1.0, 3.0], [0.0, 3.0], [2.0, 3.0])]).models
    assert model.along == (0.5, None)
    assert model.along_spread == {}


def test_without_reference_prompts_the_stream_s_own_unit_is_kept() -> None:
    both = [reading("base", [5.0, 6.0], [0.0, 0.0], [1.0, 1.0]), reading("adapted", [7.0, 8.0], [], [])]
    info = prompt_layers.compute(both)
    assert not info.scaled
    assert [model.along for model in info.models] == [(5.0, 6.0), (7.0, 8.0)]
    assert "stream's own unit" in prompt_layers.plot(info).layout.title.subtitle.text.replace("<br>", " ")


def test_layers_that_say_little_do_not_stretch_the_axis() -> None:
    wild = reading("base", [90.0, 0.7], [0.0, 0.0], [1.0, 1.0])
    assert prompt_layers.plot(prompt_layers.compute([wild])).layout.yaxis.range == (-0.2, 2.5)
    assert prompt_layers.compute([wild]).models[0].along[0] == pytest.approx(90.0)
    tame = reading("base", [0.3, 0.7], [0.0, 0.0], [1.0, 1.0])
    assert prompt_layers.plot(prompt_layers.compute([tame])).layout.yaxis.range == (-0.2, 1.2)


def test_a_model_without_a_lens_is_left_out_of_it_alone() -> None:
    none = reading("adapted", [0.5, 0.5], [0.0, 0.0], [1.0, 1.0]).model_copy(update={"odds": []})
    info = prompt_layers.compute([reading("base", [0.5, 0.5], [0.0, 0.0], [1.0, 1.0]), none])
    assert [each.role for each in info.lens] == ["base"]
    assert [trace.name for trace in prompt_layers.plot_lens(info).data] == ["base"]
    assert [trace.name for trace in prompt_layers.plot(info).data] == ["base", "adapted"]
    rows = prompt_layers.rows(info)
    assert [row["refusal log-odds, nats"] for row in rows] == [-3.0, 2.0, None, None]


def test_one_model_alone_is_drawn_with_its_reference_prompts() -> None:
    odds = {"harmful_odds": [spread(3.0)] * 2, "harmless_odds": [spread(-3.0)] * 2}
    info = prompt_layers.compute([reading("base", [0.5, 0.5], [0.0, 0.0], [1.0, 1.0], **odds)])
    for figure in (prompt_layers.plot(info), prompt_layers.plot_lens(info)):
        assert [trace.name.split()[0] for trace in figure.data] == ["harmful", "harmless", "base"]
    assert list(prompt_layers.plot_lens(info).data[0].y) == [4.0, 4.0, 2.0, 2.0]


def test_titles_say_where_the_prompt_ends_up() -> None:
    models = [reading(role, [0.5, end], [0.0, 0.0], [1.0, 1.0]) for role, end in (("base", 0.9), ("adapted", 0.25))]
    info = prompt_layers.compute(models)
    assert info.title == "After the last layer, from harmless 0 to harmful 1: base 0.90 and adapted 0.25"
    assert info.lens_title == "Log-odds of refusing, in nats: base +2.0 and adapted +2.0"
    assert prompt_layers.plot(info).layout.title.text == f"<b>{info.title}</b>"
    assert "bands" not in prompt_layers.plot(info).layout.title.subtitle.text  # drawn of one model alone


def test_a_role_s_name_is_no_markup() -> None:
    info = prompt_layers.compute([reading("<b>x</b>", [0.5, 0.5], [0.0, 0.0], [1.0, 1.0])])
    for figure in (prompt_layers.plot(info), prompt_layers.plot_lens(info)):
        assert figure.data[-1].name == "&lt;b&gt;x&lt;/b&gt;"
        assert all("<b>x" not in text for text in figure.data[-1].hovertext)
