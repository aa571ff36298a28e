"""The walls of the house: who may import whom, and what must stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
ROOMS = ("surgery", "probes", "figures", "cli")

# Room -> what it may import of ours; a module name allows that module alone.
WALLS = {
    "surgery": ("vlsurgery.surgery",),
    "probes": ("vlsurgery.surgery", "vlsurgery.probes"),
    "figures": (
        "vlsurgery.figures",
        "vlsurgery.surgery.errors",
        "vlsurgery.surgery.results",
        "vlsurgery.surgery.runtime.visible",
        "vlsurgery.probes.results",
        "vlsurgery.probes.case_results",
        "vlsurgery.probes.trajectory_results",
        "vlsurgery.probes.evaluation.thresholds",
    ),
    "cli": ("vlsurgery",),
}
# The folders of surgery from the ground up: each imports itself, what stands below it, and `errors` and `results`.
FLOORS = (
    ("runtime",),
    ("architecture",),
    ("checkpoint",),
    ("alignment",),
    ("diff", "methods", "writer"),
    ("merge",),
    ("mergekit",),
)
LIGHT = (
    "vlsurgery",
    "vlsurgery.figures.report",
    "vlsurgery.surgery.results",
    "vlsurgery.probes.results",
    "vlsurgery.probes.case_results",
    "vlsurgery.probes.trajectory_results",
    "vlsurgery.surgery.errors",
    "vlsurgery.surgery.checkpoint",
    "vlsurgery.surgery.architecture.identify",
    "vlsurgery.surgery.merge.coefficients",
    "vlsurgery.surgery.merge.recipe",
    "vlsurgery.cli.workflow.case",
    "vlsurgery.cli.main",
)


def modules(room: str) -> dict[str, Path]:
    """Every module of a room, by its dotted name."""
    found = {}
    for path in sorted((HOUSE / room).rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        found[".".join(["vlsurgery", *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`, which is never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (part for branch in node.orelse for part in [branch, *runtime_nodes(branch)])
            continue
        yield node
        yield from runtime_nodes(node)


OURS = {name for room in ROOMS for name in modules(room)}


def imports(path: Path, runtime: bool = False) -> set[str]:
    """What a file imports, at its top or inside of functions; `from a import b` is a.b where that is a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in runtime_nodes(tree) if runtime else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the package's name"
            deep = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= deep if deep <= OURS else (deep & OURS) | {node.module or ""}
    return found


def ours(names: set[str]) -> set[str]:
    """The names among them that are modules of this house."""
    return (names & OURS) - {"vlsurgery", *(f"vlsurgery.{room}" for room in ROOMS)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_walls_allow(room: str) -> None:
    for name, path in modules(room).items():
        for imported in ours(imports(path)):
            allowed = any(imported == wall or imported.startswith(f"{wall}.") for wall in WALLS[room])
            assert allowed, f"{name} imports {imported}"


def test_no_circles() -> None:
    graph = {name: ours(imports(path, runtime=True)) - {name} for room in ROOMS for name, path in modules(room).items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def floor_of(module: str) -> str:
    """The folder of surgery that a module lies in, or the module itself where it lies in none."""
    return module.removeprefix("vlsurgery.surgery.").split(".")[0]


def test_the_arrows_of_surgery_run_one_way() -> None:
    height = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}
    folders = {path.name for path in (HOUSE / "surgery").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {*height}
    for name, path in modules("surgery").items():
        for imported in ours(imports(path)):
            above, below = floor_of(name), floor_of(imported)
            if above in height and below in height and above != below:
                assert height[below] < height[above], f"{name} imports {imported}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_folder_imports_one_that_imports_it_back(room: str) -> None:
    """Folders as nodes; a file beside them is a node of its own."""

    def node(module: str) -> str:
        parts = module.split(".")
        return ".".join(parts[:3])

    graph: dict[str, set[str]] = {}
    for name, path in modules(room).items():
        near = {node(other) for other in ours(imports(path, runtime=True)) if other.split(".")[1] == room}
        graph.setdefault(node(name), set()).update(near - {node(name)})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"folders import each other: {' -> '.join(error.args[1])}")


def test_no_class_name_is_used_twice() -> None:
    """A name that means two things makes every mention of it a question."""
    owners: dict[str, list[str]] = {}
    for room in ROOMS:
        for name, path in modules(room).items():
            for statement in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(statement, ast.ClassDef):
                    owners.setdefault(statement.name, []).append(name)
    assert not {name: where for name, where in owners.items() if len(where) > 1}


def test_figures_need_no_more_than_numbers_plots_and_a_page() -> None:
    allowed = {*sys.stdlib_module_names, "vlsurgery", "numpy", "plotly", "jinja2", "markupsafe"}
    for name, path in modules("figures").items():
        strange = {imported.split(".")[0] for imported in imports(path)} - allowed
        assert not strange, f"{name} imports {strange}"


def test_surgery_runs_no_model() -> None:
    for name, path in modules("surgery").items():
        assert not any(imported.split(".")[0] == "transformers" for imported in imports(path)), name


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_bring_no_torch(module: str) -> None:
    script = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_no_test_directory_is_a_package() -> None:
    """Tests of different rooms may then have one name."""
    assert not list((HOUSE / "tests").rglob("__init__.py"))


def test_the_rooms_and_the_face_hold_all_the_code() -> None:
    """A new top-level directory needs a reason as good as these have."""
    code = {path.relative_to(HOUSE).parts[0] for path in HOUSE.glob("[!.]*/**/*.py")} - {"build", "venv"}
    assert code == {*ROOMS, "vlsurgery", "tests"}
