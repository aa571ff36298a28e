"""Every tensor gets one site, by structure, under whatever names."""

import itertools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.anatomy import describe
from vlsurgery.surgery.errors import AlignmentError

if TYPE_CHECKING:
    from conftest import Trio

Shapes = dict[str, tuple[int, ...]]
CONFIG = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40}
LLAMA_LAYER = {"attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down", "norm.attn", "norm.mlp"}
LLAMA = {f"text.{layer}.{part}" for layer in (0, 1) for part in LLAMA_LAYER} | {
    "text.embed",
    "text.head",
    "text.norm.final",
}


@pytest.fixture
def shapes(llama: Callable[..., dict[str, Tensor]]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in llama().items()}


def keys(shapes: Shapes, config: dict[str, object] | None = CONFIG) -> set[str]:
    sites = identify(shapes, config)
    assert set(sites) == set(shapes)
    assert len(set(sites.values())) == len(sites)
    return {site.key for site in sites.values()}


@pytest.mark.parametrize("config", [CONFIG, None, {}, {"text_config": CONFIG, "hidden_size": 7}], ids=str)
def test_a_llama_by_its_own_names(shapes: Shapes, config: dict[str, object] | None) -> None:
    assert keys(shapes, config) == LLAMA


@pytest.mark.parametrize(
    "prefix", ["", "model.language_model.", "language_model.model.", "thinker.model.", "model.llm.", "a.b.c.d."]
)
def test_the_prefix_says_nothing(shapes: Shapes, prefix: str) -> None:
    """A bare text model has no prefix, and no head."""
    renamed = {name.replace("model.", prefix, 1): shape for name, shape in shapes.items() if name.startswith("model.")}
    assert keys(renamed) == LLAMA - {"text.head"}


def test_every_layout_of_a_llava_has_the_same_sites(trio: "Trio") -> None:
    layouts = [
        identify(checkpoint.shapes, checkpoint.config)
        for checkpoint in map(Checkpoint.open, (trio.adapted, trio.adapted_native, trio.adapted_sharded))
    ]
    assert {site.key for site in layouts[0].values() if site.tower == "text"} == LLAMA
    for layout in layouts[1:]:
        assert set(layout.values()) == set(layouts[0].values())
    vision = {site for site in layouts[0].values() if site.tower == "vision"}
    assert {site.layer for site in vision} == {None, 0, 1}
    assert Site("vision", 1, "attn.q.bias") in vision
    assert all(site.block == "vision" for site in vision)
    assert {s.block for s in layouts[0].values() if s.tower == "projector"} == {"projector"}
    assert not any(site.tower == "other" for site in layouts[0].values())


def test_a_live_model_has_the_sites_of_its_checkpoint(trio: "Trio") -> None:
    from transformers import AutoModelForImageTextToText

    checkpoint = Checkpoint.open(trio.adapted)
    model = AutoModelForImageTextToText.from_pretrained(trio.adapted)
    live = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert set(identify(live, model.config.to_dict()).values()) == set(
        identify(checkpoint.shapes, checkpoint.config).values()
    )


def test_original_llava_layout(shapes: Shapes) -> None:
    projector = {"model.mm_projector.0.weight": (16, 16), "model.mm_projector.2.weight": (16, 16)}
    vision = {
        f"model.vision_tower.vision_tower.vision_model.encoder.layers.{layer}.self_attn.{part}_proj.weight": (16, 16)
        for layer in (0, 1)
        for part in "qkv"
    }
    found = keys({**shapes, **projector, **vision})
    assert found >= LLAMA
    assert "vision.1.attn.v" in found
    assert "projector.raw:0.weight" in found


def test_one_file_may_mix_both_layouts(trio: "Trio") -> None:
    native, legacy = (Checkpoint.open(path) for path in (trio.adapted_native, trio.adapted))
    expected = identify(native.shapes, native.config)
    mixed = {
        (name.replace("model.language_model.", "language_model.model.") if ".layers.1." in name else name): shape
        for name, shape in native.shapes.items()
    }
    assert set(identify(mixed, native.config).values()) == set(expected.values())
    assert set(mixed) & set(legacy)


def test_inserted_layers_keep_the_bases_numbers(shapes: Shapes) -> None:
    """Llama 3.2 Vision: layers that attend to pictures stand between those of the language model."""
    grown = {}
    for name, shape in shapes.items():
        grown[name.replace("layers.1.", "layers.2.")] = shape
        if "layers.1." in name:
            grown[name.replace("self_attn", "cross_attn")] = shape
    sites = identify(grown, {**CONFIG, "num_hidden_layers": 3})
    plain = identify(shapes, CONFIG)
    for name, site in plain.items():
        assert sites[name.replace("layers.1.", "layers.2.")] == site
    added = [site for site in sites.values() if site.own_layer is not None]
    assert {(site.layer, site.own_layer, site.block) for site in added} == {(None, 1, None)}
    assert "text.added.1.cross_attn.q" in {site.key for site in added}


def test_two_vision_towers_do_not_become_one(shapes: Shapes) -> None:
    towers = {
        f"model.{tower}.layers.{layer}.attn.qkv.weight": (48, 16)
        for tower in ("vision_model", "high_res_vision_model")
        for layer in (0, 1)
    }
    assert len(keys({**shapes, **towers})) == len(shapes) + 4


NAMES = st.from_regex(r"[a-z]{3,8}", fullmatch=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=st.lists(NAMES, min_size=3, max_size=3, unique=True))
def test_containers_renamed_at_random_are_found_all_the_same(trio: "Trio", names: list[str]) -> None:
    """Layers, vision tower and language model by any name: the text stack is known by the vocabulary beside it."""
    checkpoint = Checkpoint.open(trio.adapted)
    words = dict(zip(("language_model", "vision_tower", "layers"), names, strict=True))

    def rename(name: str) -> str:
        return ".".join(words.get(segment, segment) for segment in name.split("."))

    renamed = {rename(name): shape for name, shape in checkpoint.shapes.items()}
    sites = identify(renamed, checkpoint.config)
    expected = identify(checkpoint.shapes, checkpoint.config)
    for name, site in expected.items():
        if site.tower == "text":
            assert sites[rename(name)] == site
        else:
            assert sites[rename(name)].tower != "text"


def test_a_bare_text_model_is_known_among_nameless_towers(shapes: Shapes) -> None:
    """No prefix to share with the vocabulary's table: lying right beside it must do."""
    bare = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    tower = {f"zzz.{name}": shape for name, shape in bare.items() if name.startswith("layers.")}
    sites = identify({**bare, **tower}, CONFIG)
    assert {name for name, site in sites.items() if site.tower == "text" and site.layer is not None} == {
        name for name in bare if name.startswith("layers.")
    }


def test_norms_go_with_what_they_feed(shapes: Shapes) -> None:
    """`post_attention_layernorm` feeds the MLP in a Llama, and follows attention in a Gemma."""
    assert Site("text", 1, "norm.mlp").block == "1.mlp"
    gemma = {
        **shapes,
        **{
            f"model.layers.{layer}.{side}_feedforward_layernorm.weight": (16,)
            for layer in (0, 1)
            for side in ("pre", "post")
        },
    }
    sites = identify(gemma, CONFIG)
    assert sites["model.layers.0.post_attention_layernorm.weight"] == Site("text", 0, "norm.attn_post")
    assert sites["model.layers.0.post_attention_layernorm.weight"].block == "0.attn"
    assert sites["model.layers.0.pre_feedforward_layernorm.weight"].block == "0.mlp"
    assert sites["model.layers.0.post_feedforward_layernorm.weight"] == Site("text", 0, "norm.mlp_post")


def test_what_has_no_word_keeps_its_suffix_and_its_block(shapes: Shapes) -> None:
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
        "model.layers.0.mlp.experts.3.gate_proj.weight": (24, 16),
        "model.layers.0.mlp.gate.weight": (8, 16),
        "model.layers.0.altup.weight": (16, 16),
        "lm_head.bias": (40,),
    }
    sites = identify({**shapes, **extra}, CONFIG)
    assert [(sites[name].key, sites[name].block) for name in extra] == [
        ("text.0.raw:self_attn.rotary_emb.inv_freq", "0.attn"),
        ("text.0.expert.3.gate", "0.mlp"),
        ("text.0.mlp.router", "0.mlp"),
        ("text.0.raw:altup.weight", "0.other"),
        ("text.head.bias", "head"),
    ]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.1.per_layer_input_gate.weight", "1.other"),  # Gemma 4
        ("model.layers.1.operator_norm.weight", "1.other"),  # LFM2
        ("model.layers.1.mixer.in_proj.weight", "1.other"),  # Mamba
        ("model.embed_tokens_per_layer.weight", "embed"),
        ("model.per_layer_model_projection.weight", "embed"),
        ("model.per_layer_projection_norm.weight", "embed"),
        ("model.altup_projections.0.weight", "embed"),  # Gemma 3n
        ("model.altup_unembed_projections.0.weight", "head"),
        ("model.embed_positions.weight", "embed"),  # OPT
        ("model.word_embeddings_layernorm.weight", "embed"),  # BLOOM
        ("model.hc_head.hc_fn", "head"),  # DeepSeek V4
        ("model.extra.norm.weight", "norm"),
    ],
)
def test_every_parameter_of_the_language_model_has_a_block(shapes: Shapes, name: str, block: str) -> None:
    assert identify({**shapes, name: (16, 12)}, CONFIG)[name].block == block


def test_two_names_for_one_site_are_never_a_choice(shapes: Shapes) -> None:
    sites = identify({**shapes, "model.layers.0.attention.q_proj.weight": (16, 16)}, CONFIG)
    for container in ("attention", "self_attn"):
        assert sites[f"model.layers.0.{container}.q_proj.weight"].component == f"raw:{container}.q_proj.weight"
    assert sites["model.layers.1.self_attn.q_proj.weight"].component == "attn.q"
    with pytest.raises(AlignmentError, match=r"text\.embed"):
        identify({**shapes, "model.wte.weight": (40, 16)}, CONFIG)


def test_two_stacks_that_nothing_tells_apart_are_an_error(shapes: Shapes) -> None:
    twin = {name.replace("model.layers", "model.towers"): shape for name, shape in shapes.items()}
    with pytest.raises(AlignmentError, match=re.escape("'model.layers' and 'model.towers'")):
        identify({**shapes, **twin}, CONFIG)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"num_hidden_layers": 3}, "3 layers of width 16"), ({"hidden_size": 12}, "2 layers of width 12")],
)
def test_no_text_stack_names_what_was_looked_for_and_what_was_found(
    shapes: Shapes, change: dict[str, int], words: str
) -> None:
    with pytest.raises(AlignmentError, match=words) as caught:
        identify(shapes, {**CONFIG, **change})
    assert "model.layers (2 members)" in str(caught.value)


def test_a_hole_in_the_layers_is_not_a_stack(shapes: Shapes) -> None:
    holed = {name.replace("layers.1", "layers.2"): shape for name, shape in shapes.items()}
    with pytest.raises(AlignmentError, match="no text stack"):
        identify(holed, None)


@given(
    st.lists(st.builds(Site, st.sampled_from(["text", "vision"]), st.none() | st.integers(0, 9), st.text(max_size=3)))
)
def test_sites_have_one_order(sites: list[Site]) -> None:
    ordered = sorted(sites)
    assert ordered == sorted(ordered[1:] + ordered[:1])
    assert all(not later < earlier for earlier, later in itertools.pairwise(ordered))


def test_describe_counts_everything_once(trio: "Trio") -> None:
    checkpoint = Checkpoint.open(trio.adapted)
    found = describe(checkpoint)
    assert found.parameters == sum(tensor.load().numel() for tensor in checkpoint.values())
    assert sum(tower.parameters for tower in found.towers) == found.parameters
    assert sum(tower.tensors for tower in found.towers) == len(found.tensors) == len(checkpoint)
    assert found.dtypes == {"float32": len(checkpoint)}
    assert (found.tied, found.quantised, found.model_type) == (False, None, "llava")
    assert {tower.tower: tower.layers for tower in found.towers} == {"text": 2, "vision": 2, "projector": 0}


def test_layers_whose_norms_have_no_weights_are_found_where_no_others_fit(shapes: Shapes) -> None:
    """OLMo and nanochat; a stack with norms of the same length and width comes first."""
    bare = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    assert keys(bare) == {key for key in LLAMA if ".norm." not in key}
    tower = {f"head_of.{name}": shape for name, shape in bare.items()}
    assert {key for key in keys(shapes | tower) if key.startswith("text.") and "head_of" not in key} == LLAMA


def test_layers_with_norms_of_another_width_are_no_text_stack(shapes: Shapes) -> None:
    narrow = {name: shape if len(shape) > 1 else (3,) for name, shape in shapes.items()}
    with pytest.raises(AlignmentError, match="no text stack"):
        identify(narrow, CONFIG)
