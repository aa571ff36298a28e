"""Which rows and columns are which head's: by the config, and refused where shapes do not bear it out."""

import pytest

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff.heads import head_layout

CONFIG = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}


def site(component: str, tower: str = "text") -> Site:
    return Site(tower, 0, component)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("component", "shape", "count", "columns"),
    [("attn.q", (16, 16), 4, False), ("attn.k", (8, 16), 2, False), ("attn.o", (16, 16), 4, True)],
)
@pytest.mark.parametrize("nested", [False, True])
def test_heads_of_a_projection(component: str, shape: tuple[int, int], count: int, columns: bool, nested: bool) -> None:
    layout = head_layout(site(component), shape, "q_proj.weight", {"text_config": CONFIG} if nested else CONFIG)
    assert (layout.kind, layout.count, layout.columns, layout.why) == ("heads", count, columns, None)


def test_a_stated_head_width_goes_before_the_hidden_size() -> None:
    layout = head_layout(site("attn.q"), (32, 16), "q_proj.weight", {**CONFIG, "head_dim": 8})
    assert (layout.kind, layout.count) == ("heads", 4)


@pytest.mark.parametrize(
    ("component", "shape", "config", "why"),
    [
        ("attn.q", (32, 16), CONFIG, "32 rows are not the config's 4 heads of 4"),
        ("attn.o", (16, 18), CONFIG, "18 columns are not"),
        ("attn.q", (16, 16), {}, "does not say how many heads"),
        ("attn.q", (16, 16), None, "does not say how many heads"),
    ],
)
def test_what_does_not_fit_has_a_reason(
    component: str, shape: tuple[int, int], config: dict[str, object] | None, why: str
) -> None:
    layout = head_layout(site(component), shape, "q_proj.weight", config)
    assert layout.kind == "whole"
    assert why in (layout.why or "")


def test_a_fused_projection_is_told_apart_where_its_order_is_known() -> None:
    layout = head_layout(site("attn.qkv"), (32, 16), "layers.0.qkv_proj.weight", CONFIG)
    assert layout.heads == (("q", 0), ("q", 1), ("q", 2), ("q", 3), ("k", 0), ("k", 1), ("v", 0), ("v", 1))
    for name in ("query_key_value.weight", "wqkv.weight"):
        assert "in which order" in (head_layout(site("attn.qkv"), (32, 16), f"layers.0.{name}", CONFIG).why or "")


def test_vision_heads_are_the_vision_configs() -> None:
    config = {"text_config": CONFIG, "vision_config": {"hidden_size": 16, "num_attention_heads": 2}}
    assert head_layout(site("attn.k", "vision"), (16, 16), "k_proj.weight", config).count == 2
    assert head_layout(site("attn.k", "vision"), (16, 16), "k_proj.weight", CONFIG).kind == "whole"


def test_a_stack_is_divided_by_expert_and_other_tensors_are_whole() -> None:
    assert head_layout(site("experts.down"), (6, 4, 4), "down", CONFIG).kind == "experts"
    assert head_layout(site("experts.down"), (6, 4, 4), "down", CONFIG).count == 6
    for component, shape in (("mlp.up", (16, 16)), ("norm.attn", (16,)), ("attn.q_norm", (4,)), ("attn.q.bias", (16,))):
        assert head_layout(site(component), shape, "weight", CONFIG) == head_layout(
            site("embed"), (9, 9), "weight", CONFIG
        )
