"""Ten of the most used families in small, by the checks of tests/benchmarks/running.py, which runs them all."""

from pathlib import Path

import pytest
import transformers
from families.all_families import FAMILIES, listed
from families.build import build, quiet
from families.checks import CHECKS, Opened, outcomes
from packaging.version import Version

MOST_USED = (
    "Qwen2.5-VL", "Qwen3-VL", "Gemma 3", "LLaVA-1.5", "LLaVA-Next", "LLaVA-OneVision", "InternVL", "Idefics3",
    "PaliGemma", "Llama 3.2 Vision",
)  # fmt: skip
# The version of transformers from which on a family runs, and what the ones before do.
SINCE = {
    "Idefics3": ("5.18", "does not load the processor that it saves"),
    "PaliGemma": ("5.21", "generates otherwise than a whole pass computes, where there is no picture"),
}


@pytest.mark.parametrize("name", MOST_USED)
def test_a_family_runs_as_transformers_runs_it(name: str, tmp_path: Path) -> None:
    since, why = SINCE.get(name, ("0", ""))
    if Version(transformers.__version__) < Version(since):
        pytest.skip(f"transformers before {since} {why}")
    with quiet():
        build(FAMILIES[name], tmp_path)
        found = outcomes(Opened(FAMILIES[name], tmp_path))
    assert {check: fault for check, fault in found.items() if fault} == {}
    assert [*found] == [*CHECKS]


def test_the_readme_lists_the_families_of_the_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert " ".join(listed().split()) in " ".join(readme.split())
