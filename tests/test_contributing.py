"""CONTRIBUTING.md is a contract: each of its recipes is followed in a copy of the package, and what it adds works."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from vlsurgery.surgery.architecture.identify import identify

HOUSE = Path(__file__).parent.parent
ROOMS = ("surgery", "probes", "figures", "cli")
FENCE = re.compile(r"^```python\n# ([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"(?P<file>[\w./]+)(?:, (?P<side>behind|before) `(?P<line>.*)`)?")
LINES = 12  # of code and comments that one block holds at most, imports and the file's own docstring apart

# What a new family's layer holds that only the page's names tell: attention and MLP under other containers.
LAYER = {
    **{f"token_mixer.{part}_mat.weight": (8, 8) for part in "qkvo"},
    **{f"channel_mixer.{part}_proj.weight": (24, 8) for part in ("gate", "up")},
    "channel_mixer.down_proj.weight": (8, 24),
    "input_layernorm.weight": (8,),
    "ffn_norm.weight": (8,),
}
SHAPES = {
    "model.embed_tokens.weight": (40, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (40, 8),
    **{f"model.layers.{layer}.{name}": shape for layer in range(2) for name, shape in LAYER.items()},
}
CONFIG = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 40}

SCRIPT = """
import json, sys
from typer.testing import CliRunner
import vlsurgery
from vlsurgery.cli.main import app
from vlsurgery.figures.report import report
from vlsurgery.surgery.architecture.identify import identify

shapes, config = json.loads(sys.argv[1])
merge = CliRunner().invoke(app, ["merge", "--method", "median", "a", "b", "c", "-o", "merged", "--quiet"])
diff = vlsurgery.diff("a", "b", level="norms")
figure = vlsurgery.figures.change.plot(diff)
page = report(diff, None, None, None, cdn=True)
print(json.dumps({
    "home": vlsurgery.__file__,
    "merge": [merge.exit_code, merge.output],
    "verdicts": [each.label for each in vlsurgery.judge(["I'm sorry, no.", "First, mix."], judge="apology")],
    "bars": dict(zip(figure.data[0].x, map(float, figure.data[0].y))),
    "changes": {each.key: each.metrics.vl.relative for each in diff.blocks},
    "section": 'id="change"' in page,
    "blocks": {name: site.block for name, site in identify(shapes, config).items()},
    "components": {name: site.component for name, site in identify(shapes, config).items()},
}))
"""


def recipes() -> list[tuple[str, str, str, str]]:
    """Every block of the page: its file, whether it goes behind or before a line (or is the file), that line, and the
    code."""
    found = []
    for place, code in FENCE.findall((HOUSE / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        told = PLACE.fullmatch(place)
        assert told, f"# {place}: neither a file nor a place in one"
        found.append((told["file"], told["side"] or "", told["line"] or "", code))
    return found


def follow(root: Path, file: str, side: str, line: str, code: str) -> None:
    """Do what one block says, in a copy."""
    path = root / file
    if not side:
        assert not path.exists(), f"{file} is there already"
        path.write_text(code, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next((at for at, found in enumerate(lines) if found.strip().startswith(line)), None)
    assert at is not None, f"{file} has no line that begins with {line}"
    lines.insert(at + (side == "behind"), code if side == "behind" else f"{code}\n\n")  # functions stand apart
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with every recipe followed."""
    root = tmp_path_factory.mktemp("copy") / "vlsurgery"
    shutil.copytree(HOUSE / "vlsurgery", root)
    for room in ROOMS:
        shutil.copytree(HOUSE / room, root / room)
    for recipe in recipes():
        if not recipe[0].startswith("tests/"):
            follow(root, *recipe)
    return root


@pytest.fixture(scope="module")
def found(
    copy: Path, tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path], llama: Callable[..., Any]
) -> dict[str, Any]:
    """What the copy does with three small checkpoints; their folder too."""
    here = tmp_path_factory.mktemp("here")
    for seed, name in enumerate("abc"):
        write(here / name, llama(seed))
    env = {**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps([SHAPES, CONFIG])]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "here": here}


def test_the_copy_is_what_runs(copy: Path, found: dict[str, Any]) -> None:
    assert Path(found["home"]) == copy / "__init__.py"


def test_the_new_method_merges(found: dict[str, Any]) -> None:
    assert found["merge"][0] == 0, found["merge"]
    merged, *models = (load_file(found["here"] / name / "model.safetensors") for name in ("merged", "a", "b", "c"))
    for name, entries in merged.items():
        assert np.array_equal(entries, np.median([model[name] for model in models], axis=0)), name
    assert "median" in (found["here"] / "merged" / "recipe.yaml").read_text()


def test_the_new_familys_blocks_are_found(found: dict[str, Any]) -> None:
    before = {site.block for site in identify(SHAPES, CONFIG).values() if site.layer is not None}
    assert before == {"0.attn", "0.mlp", "0.other", "1.attn", "1.mlp", "1.other"}  # norms have names that are known
    for layer in range(2):
        for name in LAYER:
            expected = "attn" if name.startswith(("token_mixer", "input")) else "mlp"
            assert found["blocks"][f"model.layers.{layer}.{name}"] == f"{layer}.{expected}", name
    assert found["components"]["model.layers.1.token_mixer.o_mat.weight"] == "attn.o"


def test_the_new_judge_judges(found: dict[str, Any]) -> None:
    assert found["verdicts"] == ["refused", "complied"]


def test_the_new_figure_draws_and_stands_in_the_report(found: dict[str, Any]) -> None:
    assert found["bars"] == found["changes"]
    assert {"0.attn", "1.mlp", "embed"} <= found["bars"].keys()
    assert found["section"]


def test_what_was_added_is_as_clean_as_the_rest(copy: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    for words in (("check", "--output-format", "concise"), ("format", "--check")):
        done = subprocess.run(
            [
                *ruff,
                *words,
                "--config",
                HOUSE / "pyproject.toml",
                *sorted({copy / each[0] for each in recipes() if not each[0].startswith("tests/")}),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: f"{recipe[0]} {recipe[2]}")
def test_a_recipe_is_about_ten_lines(recipe: tuple[str, str, str, str]) -> None:
    code = recipe[3].split('"""\n', 1)[-1] if recipe[3].startswith('"""') else recipe[3]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(lines) <= LINES


def test_the_new_family_runs_as_transformers_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HOUSE / "tests"))
    from families import build, checks, texts
    from families.entries import FAMILIES

    (code,) = (code for file, _, _, code in recipes() if file == "tests/families/texts.py")
    ((name, row),) = eval("{" + code + "}").items()
    assert name not in FAMILIES
    monkeypatch.setitem(FAMILIES, name, FAMILIES["OLMo"])  # so that what is entered is taken out again
    texts._enter(name, *row)
    with build.quiet():
        build.build(FAMILIES[name], tmp_path)
        outcomes = checks.outcomes(checks.Opened(FAMILIES[name], tmp_path), ("opens", "ids", "blocks", "graft"))
    assert outcomes == dict.fromkeys(("opens", "ids", "blocks", "graft"), "")
