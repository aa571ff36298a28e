"""The laws of the flow, with steps that only write down that they ran."""

from pathlib import Path

import pytest

from cli.flow import Flow, Job, Settings, Step, Toward, Wishes
from cli.steps import STEPS
from surgery.case import Case
from surgery.errors import SurgeryError


class Bench:
    """A case with three steps in a row and one that can do without the others: a -> b -> c, and d that may use b."""

    def __init__(self, folder: Path, roles: dict[str, Path]) -> None:
        self.case = Case.create(folder, {role: str(path) for role, path in roles.items()})
        self.ran: list[str] = []
        self.said: list[str] = []
        self.settings: dict[str, Settings] = {name: {} for name in "abcd"}
        self.broken: str | None = None

    def flow(self) -> Flow:
        job = Job(self.case, Wishes(), self.said.append)
        return Flow(job, [self._step("a"), self._step("b", "a"), self._step("c", "b"), self._step("d", uses=("b",))])

    def _step(self, name: str, *needs: str, uses: tuple[str, ...] = ()) -> Step:
        def work(job: Job, settings: Settings) -> None:  # noqa: ARG001
            if name == self.broken:
                raise KeyboardInterrupt
            self.ran.append(name)
            job.case.path(name).write_text("done")

        return Step(
            name,
            needs,
            uses,
            files=lambda case, settings: [case.path(name)],  # noqa: ARG005
            settings=lambda job: self.settings[name],  # noqa: ARG005
            run=work,
        )

    def bring(self, *goals: str) -> list[str]:
        """What runs, and before that: a plan must say the same."""
        self.ran.clear()
        self.said.clear()
        planned = [pending.step.name for pending in self.flow().pending(*goals)]
        self.flow().bring(*goals)
        assert self.ran == planned
        return self.ran


@pytest.fixture
def bench(tmp_path: Path, trio: dict[str, Path]) -> Bench:
    return Bench(tmp_path / "case", trio)


def test_what_is_missing_runs_in_order_and_is_said(bench: Bench) -> None:
    assert bench.bring("c") == ["a", "b", "c"]
    assert any("has no a yet: running it first" in line for line in bench.said)
    assert any("has no b yet: running it first" in line for line in bench.said)
    assert not any("has no c yet" in line for line in bench.said)


def test_what_is_there_is_used(bench: Bench) -> None:
    bench.bring("b")
    assert bench.bring("c") == ["c"]
    assert bench.bring("c") == []
    assert bench.said == [f"c: nothing changed since it was done, {bench.case.folder} has it"]


def test_the_order_of_goals_does_not_matter(bench: Bench) -> None:
    assert bench.bring("d", "c", "a") == ["a", "b", "c", "d"]


def test_a_case_that_is_opened_again_knows_what_was_done(bench: Bench) -> None:
    bench.bring("c")
    bench.case = Case.open(bench.case.folder)
    assert bench.bring("c") == []


def test_other_settings_run_a_step_and_all_that_follows_again(bench: Bench) -> None:
    bench.bring("c")
    bench.settings["b"] = {"x": 1}
    assert bench.bring("c") == ["b", "c"]
    assert any("of other settings" in line for line in bench.said)
    assert bench.bring("c") == []


def test_a_step_that_was_done_again_makes_its_followers_old(bench: Bench) -> None:
    bench.bring("c")
    bench.settings["a"] = {"x": 1}
    assert bench.bring("a") == ["a"]
    assert bench.bring("c") == ["b", "c"]


def test_weights_that_changed_run_everything_again(bench: Bench, trio: dict[str, Path]) -> None:
    bench.bring("c")
    weights = trio["adapted"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    bench.case = Case.open(bench.case.folder)
    assert bench.bring("c") == ["a", "b", "c"]


def test_a_file_that_vanished_runs_its_step_again(bench: Bench) -> None:
    bench.bring("c")
    bench.case.path("b").unlink()
    assert bench.bring("c") == ["b", "c"]


def test_what_can_be_done_without_is_not_run_but_noticed(bench: Bench) -> None:
    assert bench.bring("d") == ["d"]
    assert bench.bring("b") == ["a", "b"]
    assert bench.bring("d") == ["d"]
    assert bench.bring("d") == []
    bench.settings["b"] = {"x": 1}
    assert bench.bring("d") == [], "what was asked for now says nothing about what b was made with"
    assert bench.bring("b", "d") == ["b", "d"]


def test_an_old_result_that_can_be_done_without_is_left_out_and_said(bench: Bench) -> None:
    bench.bring("b", "d")
    bench.settings["a"] = {"x": 1}
    bench.bring("a")
    assert bench.bring("d") == ["d"]
    assert any("the b in" in line and "left out" in line for line in bench.said)


def test_an_interrupted_step_is_not_recorded_and_goes_on_there(bench: Bench) -> None:
    bench.broken = "b"
    with pytest.raises(KeyboardInterrupt):
        bench.flow().bring("c")
    assert bench.case.settings_of("b") is None
    bench.broken = None
    assert bench.bring("c") == ["b", "c"]


def test_every_step_comes_after_what_it_reads() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert seen.issuperset((*step.needs, *step.uses))
        seen.add(step.name)


@pytest.mark.parametrize(
    ("roles", "toward", "expected"),
    [
        (("base", "adapted", "safety"), "both", ("base", "safety")),
        (("base", "adapted", "safety"), "safety", ("safety",)),
        (("base", "adapted"), "both", ("base",)),
        (("base", "adapted"), "base", ("base",)),
    ],
)
def test_a_merge_goes_toward_what_the_case_has(
    tmp_path: Path, trio: dict[str, Path], roles: tuple[str, ...], toward: Toward, expected: tuple[str, ...]
) -> None:
    case = Case.create(tmp_path / "case", {role: str(trio[role]) for role in roles})
    assert Job(case, Wishes(toward=toward)).sources == expected


def test_toward_safety_without_one_says_how_to_get_one(tmp_path: Path, trio: dict[str, Path]) -> None:
    case = Case.create(tmp_path / "case", {role: str(trio[role]) for role in ("base", "adapted")})
    with pytest.raises(SurgeryError, match=r"no safety checkpoint.*diff BASE ADAPTED SAFETY"):
        _ = Job(case, Wishes(toward="safety")).sources


def test_prompts_stay_what_the_last_probe_was_asked(
    tmp_path: Path, trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.txt"
    file.write_text("one question\nanother question\n")
    case = Case.create(tmp_path / "case", {role: str(path) for role, path in trio.items()})
    asked = Job(case, Wishes(prompts=(f"{file}:borderline",))).material
    borderline = {prompt.text for prompt in asked.prompts if prompt.set == "borderline"}
    assert borderline == {"one question", "another question"}
    assert {prompt.set for prompt in asked.prompts} > {"harmful", "borderline"}
    case.record("probe", asked.settings)
    monkeypatch.chdir(tmp_path / "case")
    assert Job(case).material.settings == asked.settings
    file.write_text("a third question\n")
    assert Job(case).material.settings != asked.settings
