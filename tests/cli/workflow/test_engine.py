"""The laws of the flow, with steps that only write down that they ran."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, Settings, Step, StepOptions, Toward
from vlsurgery.cli.workflow.steps import STEPS, keep_edited_recipe
from vlsurgery.probes.probe import Findings
from vlsurgery.probes.results import ProbeResult, TargetsResult
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.merge.recipe import Recipe


class Bench:
    """A case with three steps in a row and one that can do without the others: a -> b -> c, and d that may use b."""

    def __init__(self, folder: Path, roles: dict[str, Path]) -> None:
        self.case = Case.create(folder, {role: Checkpoint.open(path) for role, path in roles.items()})
        self.ran: list[str] = []
        self.said: list[str] = []
        self.settings: dict[str, Settings] = {name: {} for name in "abcd"}
        self.broken: str | None = None

    def flow(self) -> Flow:
        job = Job(self.case, StepOptions(), self.said.append)
        return Flow(job, [self._step("a"), self._step("b", "a"), self._step("c", "b"), self._step("d", uses=("b",))])

    def _step(self, name: str, *needs: str, uses: tuple[str, ...] = ()) -> Step:
        def work(job: Job, settings: Settings) -> None:
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
    written = weights.read_bytes()
    weights.write_bytes(written)
    bench.case = Case.open(bench.case.folder)
    assert bench.bring("c") == [], "the same bytes, whenever they were written"
    weights.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    bench.case = Case.open(bench.case.folder)
    assert bench.bring("c") == ["a", "b", "c"]


def test_a_file_that_vanished_runs_its_step_again(bench: Bench) -> None:
    bench.bring("c")
    bench.case.path("b").unlink()
    assert bench.bring("c") == ["b", "c"]


@pytest.mark.parametrize("text", ["", "DONE", "done and more"])
def test_a_file_that_was_changed_runs_its_step_and_all_that_follows_again(bench: Bench, text: str) -> None:
    bench.bring("c")
    bench.case.path("b").write_text(text)
    assert bench.bring("c") == ["b", "c"]
    assert any("has b whose files were changed" in line for line in bench.said)
    assert bench.bring("c") == []


def test_a_changed_result_that_can_be_done_without_is_left_out(bench: Bench) -> None:
    bench.bring("b", "d")
    bench.case.path("b").write_text("")
    assert bench.bring("d") == ["d"]
    assert any("the b in" in line and "left out" in line for line in bench.said)


def test_a_step_without_memory_is_named_with_what_to_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a capacity of")

    monkeypatch.setattr(Path, "write_text", greedy)
    with pytest.raises(
        SurgeryError, match=r"^a: out of memory \(CUDA .* 20.00 GiB.*\).*--prompts.*CUDA_VISIBLE_DEVICES="
    ):
        bench.flow().bring("a")
    monkeypatch.undo()
    assert bench.case.settings_of("a") is None
    assert bench.bring("a") == ["a"]


def test_another_fault_of_torch_stays_a_bug(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Path, "write_text", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        bench.flow().bring("a")


class Merging:
    """A case of real checkpoints whose coefficients are given, so that the real merge can be done without a model."""

    def __init__(self, folder: Path, roles: dict[str, Path]) -> None:
        self.case = Case.create(folder, {role: Checkpoint.open(path) for role, path in roles.items()})
        self.said: list[str] = []

    def flow(self) -> Flow:
        def give(job: Job, settings: Settings) -> None:
            Recipe.of(job.checkpoints, {"default": {"base": 0.5}}).save(job.case.path("recipe.yaml"))

        given = replace(next(step for step in STEPS if step.name == "coefficients"), needs=(), settings=lambda _: {})
        given = replace(given, run=give, files=lambda case, _: [case.path("recipe.yaml")])
        job = Job(self.case, StepOptions(prompts=()), self.said.append)
        return Flow(job, [given, next(step for step in STEPS if step.name == "merge")])

    def bring(self) -> list[str]:
        self.said.clear()
        self.flow().bring("merge")
        return [line for line in self.said if line.startswith("merge: ")]


def replaced(shard: Path) -> None:
    shard.write_bytes(bytes(shard.stat().st_size))


def truncated(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-100])


def joined_by_another(shard: Path) -> None:
    shard.with_name("stranger.safetensors").write_bytes(b"")


@pytest.mark.parametrize("fault", [Path.unlink, replaced, truncated, joined_by_another])
def test_a_merge_that_is_no_longer_what_was_written_is_written_again(
    tmp_path: Path, trio: dict[str, Path], fault: Callable[[Path], None]
) -> None:
    bench = Merging(tmp_path / "case", {role: trio[role] for role in ("base", "adapted")})
    assert any("done in" in line for line in bench.bring())
    assert "nothing changed" in bench.bring()[0]
    shard = tmp_path / "case" / "merged" / "model.safetensors"
    written = shard.read_bytes()
    fault(shard)
    evaluate = next(step for step in STEPS if step.name == "evaluate")
    assert evaluate.settings(bench.flow().job)["merged"] is None, "what may be broken is not opened"
    assert [pending.reason for pending in bench.flow().pending("merge")] == ["its files were changed since"]
    assert any("done in" in line for line in bench.bring())
    assert shard.read_bytes() == written
    assert {path.name for path in shard.parent.glob("*.safetensors")} == {shard.name}
    assert "nothing changed" in bench.bring()[0]
    assert evaluate.settings(bench.flow().job)["merged"] == Checkpoint.open(shard.parent).identity


def test_a_recipe_that_somebody_changed_is_kept_beside_the_new_one(tmp_path: Path, trio: dict[str, Path]) -> None:
    case = Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})
    recipe, tradeoff = case.path("recipe.yaml"), case.path("tradeoff.json")
    recipe.write_text("ours")
    tradeoff.write_text("{}")
    case.record("coefficients", {}, [tradeoff, recipe])
    keep_edited_recipe(Job(case))
    assert not case.path("recipe.edited.yaml").exists()
    recipe.write_text("changed by hand")
    keep_edited_recipe(Job(case))
    assert case.path("recipe.edited.yaml").read_text() == "changed by hand"


def test_a_probe_is_a_look_at_report_prompts(
    tmp_path: Path, trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(*_: object) -> Findings:
        lists = {name: [] for name in ("rows", "cosines", "attribution", "transplants")}
        absent = dict.fromkeys(("selected", "completeness", "ceiling"))
        nothing = ProbeResult(**lists, **absent, notes=["of the probe"], verdict="")
        return Findings(nothing, {"x": torch.zeros(1)}, TargetsResult(rows=[]))

    monkeypatch.setattr("vlsurgery.probes.probe.probe", seen)
    requests = tmp_path / "own.txt"
    requests.write_text("a deed\nanother deed\n")
    case = Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})
    said: list[str] = []
    Flow(Job(case, StepOptions(prompts=(f"{requests}:harmful",)), said.append), STEPS).bring("probe")
    (look,) = [json.loads(line) for line in case.path("history.jsonl").read_text().splitlines()]
    assert look["step"] == "probe"
    assert look["roles"] == ["base", "adapted", "safety"]
    found = case.result(ProbeResult)
    assert found
    assert found.notes[0] == "of the probe"
    assert "FILE:harmless" in found.notes[1]
    assert any(found.notes[1] in line for line in said)


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
    case = Case.create(tmp_path / "case", {role: Checkpoint.open(trio[role]) for role in roles})
    assert Job(case, StepOptions(toward=toward)).sources == expected


def test_toward_safety_without_one_says_how_to_get_one(tmp_path: Path, trio: dict[str, Path]) -> None:
    case = Case.create(tmp_path / "case", {role: Checkpoint.open(trio[role]) for role in ("base", "adapted")})
    with pytest.raises(SurgeryError, match=r"no safety checkpoint.*diff BASE ADAPTED SAFETY"):
        _ = Job(case, StepOptions(toward="safety")).sources


def test_prompts_stay_what_the_last_probe_was_asked(
    tmp_path: Path, trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.txt"
    file.write_text("one question\nanother question\n")
    case = Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})
    asked = Job(case, StepOptions(prompts=(f"{file}:borderline",))).prompt_source
    borderline = {prompt.text for prompt in asked.prompts if prompt.set == "borderline"}
    assert borderline == {"one question", "another question"}
    assert {prompt.set for prompt in asked.prompts} > {"harmful", "borderline"}
    case.record("probe", asked.settings)
    monkeypatch.chdir(tmp_path / "case")
    assert Job(case).prompt_source.settings == asked.settings
    file.write_text("a third question\n")
    assert Job(case).prompt_source.settings != asked.settings
