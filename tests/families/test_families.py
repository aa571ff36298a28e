"""Ten of the most used families in small, by the checks of tests/benchmarks/running.py, which runs them all."""

from pathlib import Path

import pytest
from families.all_families import FAMILIES, listed
from families.build import build, quiet
from families.checks import CHECKS, Opened, outcomes

MOST_USED = (
    "Qwen2.5-VL", "Qwen3-VL", "Gemma 3", "LLaVA-1.5", "LLaVA-Next", "LLaVA-OneVision", "InternVL", "Idefics3",
    "PaliGemma", "Llama 3.2 Vision",
)  # fmt: skip


@pytest.mark.parametrize("name", MOST_USED)
def test_a_family_runs_as_transformers_runs_it(name: str, tmp_path: Path) -> None:
    with quiet():
        build(FAMILIES[name], tmp_path)
        found = outcomes(Opened(FAMILIES[name], tmp_path))
    assert {check: why for check, why in found.items() if why} == {}
    assert [*found] == [*CHECKS]


def test_the_readme_lists_the_families_of_the_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert " ".join(listed().split()) in " ".join(readme.split())
