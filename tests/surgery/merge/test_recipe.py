"""A recipe goes to YAML and back without losing a bit, and says what is wrong with one that a person edited."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.results import CheckpointRef

PLAIN = Recipe(
    checkpoints={
        role: CheckpointRef(path=f"/models/{role}", identity="sha256:0") for role in ("base", "adapted", "safety")
    },
    coefficients={"default": {"base": 0.0, "safety": 0.0}, "3.mlp": {"base": 0.12, "safety": 0.41}, "3": {"base": 0.1}},
    why={"3.mlp": "gives back most of what was lost"},
)

KEYS = st.one_of(
    st.integers(0, 99).map(str),
    st.builds("{}.{}".format, st.integers(0, 99), st.sampled_from(["attn", "mlp"])),
    st.sampled_from(["default", "embed", "head", "norm", "mlp.gate", "vision", "text.3.mlp.gate", "raw:a.b: c #d"]),
)
COEFFICIENTS = st.fixed_dictionaries({}, optional={"base": st.floats(0, 1), "safety": st.floats(0, 1)})
WORDS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=30).map(lambda text: " ".join(text.split()))
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    table=st.dictionaries(KEYS, COEFFICIENTS, max_size=6),
    path=PATHS,
    words=WORDS,
    seed=st.integers(0, 2**31),
    contents=st.none() | st.dictionaries(PATHS, st.sampled_from(["0" * 64, "12e" + "4" * 61]), min_size=1, max_size=3),
)
def test_round_trip_is_exact(
    tmp_path: Path,
    table: dict[str, dict[str, float]],
    path: str,
    words: str,
    seed: int,
    contents: dict[str, str] | None,
) -> None:
    checkpoints = {role: CheckpointRef(path=path, identity="sha256:" + role) for role in ("adapted", "safety")}
    checkpoints["base"] = CheckpointRef(path=path, identity="sha256:base", contents=contents)
    why = dict.fromkeys(list(table)[::2], words)
    recipe = Recipe(checkpoints=checkpoints, coefficients=table, seed=seed, why=why)
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_a_person_can_read_it() -> None:
    lines = PLAIN.text().splitlines()
    assert "  3.mlp: {base: 0.12, safety: 0.41}  # why: gives back most of what was lost" in lines
    assert any(line.startswith("method: blend  # theta = adapted + c_base") for line in lines)
    assert lines[0].startswith("#")


@pytest.mark.parametrize("name", ["a\nb: 1", "a\n\n---\nseed: 7\n", "\r\n", "a'\n\"b", "\x85\u2028", "\t\n"])
def test_a_name_with_line_ends_stays_on_its_line(tmp_path: Path, name: str) -> None:
    """A directory, and so a role, may be called anything; as a key it must not take several lines."""
    refs = {role: CheckpointRef(path=f"/models/{role}", identity="sha256:0") for role in (name, "safety")}
    row = {name: 0.25, "safety": 0.75}
    recipe = Recipe(checkpoints=refs, like=name, method="linear", coefficients={"default": row})
    assert len(recipe.text().splitlines()) == len(recipe.model_copy(update={"like": "safety"}).text().splitlines())
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_numbers_of_layers_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(PLAIN.text().replace("'3':", "3:"))
    assert Recipe.load(path).coefficients["3"] == {"base": 0.1}


FAULTS = {
    "unknown key": (lambda t: t + "colour: red\n", "colour: Extra inputs"),
    "key twice": (lambda t: t + "seed: 1\n", "a key occurs twice"),
    "coefficient twice": (lambda t: t.replace("  '3'", "  3.mlp"), "a key occurs twice"),
    "too large": (lambda t: t.replace("0.41", "1.61"), "3.mlp.safety: 1.61 is not between 0 and 1.5"),
    "not a number": (lambda t: t.replace("0.41", "much"), "coefficients.3.mlp.safety"),
    "a number as text": (lambda t: t.replace("0.41", "'0.41'"), "coefficients.3.mlp.safety"),
    "yes is not 1": (lambda t: t.replace("0.41", "yes"), "coefficients.3.mlp.safety"),
    "nan": (lambda t: t.replace("0.41", ".nan"), "coefficients.3.mlp.safety"),
    "no such site": (lambda t: t.replace("3.mlp", "3.mpl"), "'3.mpl': no such key"),
    "no such method": (lambda t: t.replace("method: blend", "method: magic"), "there is no 'magic'; known are blend"),
    "no such role": (lambda t: t.replace("safety: 0.41", "mother: 0.41"), "'mother' has a coefficient"),
    "toward itself": (lambda t: t.replace("safety: 0.41", "adapted: 0.41"), "'adapted' has a coefficient"),
    "like nobody": (lambda t: t.replace("like: adapted", "like: merged"), "like: 'merged' is none"),
    "another schema": (lambda t: t.replace("recipe/1", "recipe/9"), "schema: "),
    "no schema": (lambda t: t.replace("schema: vlsurgery/recipe/1\n", ""), "schema: missing"),
    "no identity": (lambda t: t.replace(", identity: 'sha256:0'", "", 1), "checkpoints.base.identity: Field required"),
    "another dtype": (lambda t: t.replace("as like", "int4"), "dtype: "),
    "why as a key": (lambda t: t + "why: {}\n", "why: no such key"),
    "not YAML": (lambda _: "a: [", "not valid YAML"),
    "not a mapping": (lambda _: "- a", "a recipe is a mapping"),
    "nothing": (lambda _: "", "a recipe is a mapping"),
    "code": (lambda _: "a: !!python/object/apply:os.getcwd []", "not valid YAML"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_errors_name_file_key_and_fault(tmp_path: Path, fault: str) -> None:
    damage, words = FAULTS[fault]
    path = tmp_path / "recipe.yaml"
    assert damage(PLAIN.text()) != PLAIN.text()
    path.write_text(damage(PLAIN.text()))
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be read"):
        Recipe.load(tmp_path / "nowhere.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="can't be read"):
        Recipe.load(tmp_path / "x.yaml")


def test_one_key_as_text_and_as_a_number_is_one_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(PLAIN.text().replace("  '3':", "  3: {base: 0.2}\n  '3':"))
    with pytest.raises(RecipeError, match="key '3' occurs twice"):
        Recipe.load(path)


def test_reasons_cannot_bring_lines_keys_or_escape_sequences(tmp_path: Path) -> None:
    why = "a\nseed: 7\x1b[31m\u202e\x00\u2028like: base"
    recipe = PLAIN.model_copy(update={"why": {"3.mlp": why}})
    assert not {"\x1b", "\u202e", "\x00", "\u2028"} & set(recipe.text())
    recipe.save(tmp_path / "recipe.yaml")
    found = Recipe.load(tmp_path / "recipe.yaml")
    assert (found.seed, found.like) == (0, "adapted")
    assert found.why == {"3.mlp": "a seed: 7\\x1b[31m\\u202e\\x00 like: base"}


def test_paths_with_direction_characters_are_escapes_in_the_file(tmp_path: Path) -> None:
    refs = {"adapted": CheckpointRef(path="/models/\u202egnp", identity="sha256:0")}
    recipe = Recipe(checkpoints=refs, coefficients={})
    assert "\u202e" not in recipe.text()
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_comments_that_look_like_reasons_cost_no_time(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(PLAIN.text() + "  #: {\n" * 100_000 + "#" + " a: {: {" * 20_000)
    began = time.perf_counter()
    assert Recipe.load(path) == PLAIN
    assert time.perf_counter() - began < 10


def test_a_pipe_a_device_and_an_endless_recipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RecipeError, match="not a regular file"):
            Recipe.load(path)
    (tmp_path / "long.yaml").write_text(PLAIN.text() + f"# {'x' * 1000}\n" * 32_000)
    with pytest.raises(RecipeError, match="larger than 32 MB"):
        Recipe.load(tmp_path / "long.yaml")


def test_a_key_per_site_of_the_largest_models_is_read_back(tmp_path: Path) -> None:
    table = {f"text.{n // 10}.mlp.part{n % 10}": {"base": n % 8 / 8, "safety": 0.5} for n in range(12_000)}
    recipe = PLAIN.model_copy(update={"coefficients": table, "why": {"text.7.mlp.part1": "größer"}})
    recipe.save(tmp_path / "recipe.yaml")
    began = time.perf_counter()
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert time.perf_counter() - began < 20


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    table = {f"{n}.mlp": {"base": [0.5] * 800} for n in range(1000)}
    recipe = PLAIN.model_copy(update={"coefficients": table, "why": {}})
    with pytest.raises(RecipeError, match=r"^recipe: 80\d+ values and keys, and at most 750000 are read back"):
        recipe.save(tmp_path / "recipe.yaml")
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_bomb_in_place_of_a_value_is_one_short_line(tmp_path: Path) -> None:
    bomb = "  a0: &a0 [1, 1]\n" + "".join(f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    (tmp_path / "recipe.yaml").write_text(PLAIN.text().replace("coefficients:", "coefficients:\n" + bomb, 1))
    with pytest.raises(RecipeError) as caught:
        Recipe.load(tmp_path / "recipe.yaml")
    assert len(str(caught.value)) < 500
