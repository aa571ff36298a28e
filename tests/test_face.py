"""`import vlsurgery`: what it offers, how light it is, and what a notebook shows of its results."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vlsurgery
from vlsurgery.cli.workflow.case import CaseFile, StepRecord
from vlsurgery.cli.workflow.reproduction import Reproduction
from vlsurgery.cli.workflow.rerun_differences import RerunResult
from vlsurgery.probes.case_results import CaseComparison, HistoryResult
from vlsurgery.probes.evaluation.judges import AgreementResult
from vlsurgery.probes.evaluation.limits import LimitsResult
from vlsurgery.probes.results import (
    BehaviourResult,
    ClaimsResult,
    CompletionsResult,
    LayersResult,
    ProbeResult,
    TargetsResult,
    TradeoffResult,
)
from vlsurgery.probes.trajectory_results import TrajectoryResult
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import AnatomyResult, ComparisonResult, DiffResult, MergeResult, Result
from vlsurgery.surgery.tables import Tabular

Llama = Callable[..., dict[str, torch.Tensor]]
OFFERED = {
    "open",
    "diff",
    "probe",
    "evaluate",
    "judge",
    "merge",
    "load_case",
    "Checkpoint",
    "Recipe",
    "METHODS",
    "figures",
    "directions",
    "ablate",
    "add",
    "patch",
    "record",
    "transplant",
    "TrainerCallback",
}
RESULTS = [
    AgreementResult,
    AnatomyResult,
    BehaviourResult,
    CaseComparison,
    CaseFile,
    ClaimsResult,
    ComparisonResult,
    CompletionsResult,
    DiffResult,
    HistoryResult,
    LayersResult,
    LimitsResult,
    MergeResult,
    ProbeResult,
    Reproduction,
    RerunResult,
    TargetsResult,
    TradeoffResult,
    TrajectoryResult,
]


@pytest.fixture
def trio_of_paths(tmp_path: Path, write: Callable[..., Path], llama: Llama) -> dict[str, str]:
    """Three tiny checkpoints, by role."""
    return {role: str(write(tmp_path / role, llama(seed))) for seed, role in enumerate(("base", "adapted", "safety"))}


def test_it_offers_what_it_names() -> None:
    assert set(vlsurgery.__all__) == OFFERED
    assert set(dir(vlsurgery)) >= OFFERED
    for name in OFFERED:
        assert getattr(vlsurgery, name) is not None
    with pytest.raises(AttributeError, match="'vlsurgery' has no attribute 'difference'"):
        vlsurgery.difference  # noqa: B018


def test_importing_it_brings_nothing_heavy() -> None:
    script = "import sys, vlsurgery; print(sorted({'torch', 'transformers', 'numpy', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_strings_stand_for_checkpoints(trio_of_paths: dict[str, str], tmp_path: Path) -> None:
    result = vlsurgery.diff(*trio_of_paths.values(), level="norms")
    opened = vlsurgery.open(trio_of_paths["base"])
    again = vlsurgery.diff(opened, Path(trio_of_paths["adapted"]), trio_of_paths["safety"], level="norms")
    assert again.pairs == result.pairs
    out = tmp_path / "merged"
    made = vlsurgery.merge(
        "task_arithmetic", trio_of_paths["adapted"], trio_of_paths["safety"], base=opened, out=out, coefficients=[1, 0]
    )
    merged, adapted = vlsurgery.open(out), vlsurgery.open(trio_of_paths["adapted"])
    assert all(merged[name].load().allclose(adapted[name].load(), atol=1e-6) for name in adapted)
    repeated = vlsurgery.merge(out / "recipe.yaml", out=tmp_path / "again")
    assert repeated.shards == made.shards
    with pytest.raises(SurgeryError, match="a recipe names its models"):
        vlsurgery.merge(out / "recipe.yaml", trio_of_paths["adapted"], out=tmp_path / "third")


def test_a_case_is_read_without_its_checkpoints(trio_of_paths: dict[str, str], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vlsurgery.cli.main import app

    case = tmp_path / "case"
    done = CliRunner().invoke(app, ["diff", *trio_of_paths.values(), "--level", "norms", "--case", str(case)])
    assert done.exit_code == 0, done.stderr
    for path in trio_of_paths.values():
        Path(path, "model.safetensors").unlink()
    found = vlsurgery.load_case(case)
    assert found.diff is not None
    assert found.probe is None
    assert "diff: DiffResult(base, adapted, safety" in repr(found)
    with pytest.raises(SurgeryError, match="no case here"):
        vlsurgery.load_case(tmp_path)


def test_rows_are_flat_and_their_columns_the_same_for_every_result(trio_of_paths: dict[str, str]) -> None:
    """Columns don't depend on what was measured: a diff of two without spectra has those of a full one of three."""
    full = vlsurgery.diff(*trio_of_paths.values())
    small = vlsurgery.diff(trio_of_paths["base"], trio_of_paths["adapted"], level="norms")
    for result in (full, small):
        assert all(list(row) == DiffResult.columns() for row in result.rows())
        assert not any(isinstance(cell, dict | list | tuple) for row in result.rows() for cell in row.values())
    for row, pair in zip(full.rows(), full.pairs, strict=True):
        assert pair.metrics.vl is not None
        assert row["vl.relative"] == pair.metrics.vl.relative
        assert row["component"] == pair.component
        if pair.metrics.vl.energy:
            assert row["vl.energy.8"] == pair.metrics.vl.energy["8"]
            assert json.loads(row["vl.singular_values"]) == pair.metrics.vl.singular_values


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_has_stable_columns(kind: type[Tabular]) -> None:
    columns = kind.columns()
    assert columns
    assert len(set(columns)) == len(columns)
    assert all(re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)*", column) for column in columns)
    assert kind.row_field in kind.model_fields


def test_no_kind_of_result_was_forgotten() -> None:
    """Without its rows, merely printing one would fail."""

    def below(kind: type[Tabular]) -> set[type[Tabular]]:
        return {each for child in kind.__subclasses__() for each in ({child} | below(child))}

    ours = {kind for kind in below(Tabular) if kind.__module__.startswith("vlsurgery.")}
    assert ours - {Result} == set(RESULTS)


def test_a_case_file_prints_its_steps() -> None:
    record = StepRecord(order=1, finished="now", settings={"level": "full"}, identities={})
    case = CaseFile(steps={"diff": record})
    assert repr(case) == "CaseFile(1 steps)"
    assert [list(row) for row in case.rows()] == [CaseFile.columns()]
    assert case.rows()[0]["step"] == "diff"


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_a_frame_has_the_rows(trio_of_paths: dict[str, str], backend: str) -> None:
    pytest.importorskip(backend)
    result = vlsurgery.diff(trio_of_paths["base"], trio_of_paths["adapted"], level="norms")
    frame = result.to_frame(backend)
    assert type(frame).__module__.split(".")[0] == backend
    assert list(frame.columns) == DiffResult.columns()
    assert list(frame["vl.relative"]) == [row["vl.relative"] for row in result.rows()]


def test_a_missing_backend_is_named(trio_of_paths: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = vlsurgery.diff(trio_of_paths["base"], trio_of_paths["adapted"], level="norms")
    monkeypatch.setattr("vlsurgery.surgery.tables.find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(SurgeryError, match="takes polars: pip install polars"):
        result.to_frame("polars")
    with pytest.raises(SurgeryError, match="takes pandas or polars: pip install pandas"):
        result.to_frame()


def test_a_notebook_shows_a_result_in_a_few_lines(trio_of_paths: dict[str, str]) -> None:
    result = vlsurgery.diff(*trio_of_paths.values())
    hostile = result.model_copy(update={"verdict": "<script>alert(1)</script>"})
    for shown in (repr(result), str(result)):
        assert len(shown.splitlines()) < 40
        assert "DiffResult(base, adapted, safety" in shown
    page = hostile._repr_html_()
    assert page.count("<tr>") < 40
    assert "<script>" not in page
    assert f"and {len(result.pairs) - 12} more rows" in page
    assert "<th>vl.relative</th>" in page
