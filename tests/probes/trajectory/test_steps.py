"""Steps in names."""

import pytest

from vlsurgery.probes.trajectory.steps import in_order, step_in, steps_of


@pytest.mark.parametrize(
    ("ref", "step"),
    [
        ("run/step-20", 20),
        ("run/checkpoint-500", 500),
        ("global_step1200", 1200),
        ("out/checkpoint-500/merged", 500),
        ("org/name@step1000", 1000),
        ("org/name@stage1-step10000-tokens42B", 10000),
        ("epoch_3", 3),
        ("iter_0000100/", 100),
        ("run-2/step-7", 7),
        ("llama-7b", None),
        ("Qwen2-72B", None),
        ("footstep-9", None),
        ("adapted", None),
    ],
)
def test_a_step_is_read_where_a_training_program_writes_it(ref: str, step: int | None) -> None:
    assert step_in(ref) == step


def test_what_a_shell_lists_is_put_in_the_order_of_steps() -> None:
    assert in_order(["run/checkpoint-1000", "run/checkpoint-200", "run/checkpoint-50"]) == [
        "run/checkpoint-50", "run/checkpoint-200", "run/checkpoint-1000",
    ]  # fmt: skip
    for other in (
        ["one/step-20", "two/step-10"],
        ["b", "a"],
        ["x/step-9/epoch-1", "x/step-3/epoch-1"],
        ["step-5", "a"],
    ):
        assert in_order(other) == other


def test_names_without_a_step_are_numbered_in_order() -> None:
    steps, warnings = steps_of(["run/step-20", "adapted"])
    assert steps == [0, 1]
    assert "adapted names no step" in warnings[0]


def test_steps_that_do_not_rise_are_said_and_taken_as_they_are() -> None:
    assert steps_of(["step-0", "step-5", "step-10"]) == ([0, 5, 10], [])
    for second in ("step-5", "step-10"):
        steps, warnings = steps_of(["step-10", second])
        assert steps == [10, int(second[5:])]
        assert f"steps do not rise: {second}" in warnings[0]
