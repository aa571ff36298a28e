"""Whether the package keeps what pyproject.toml promises: tests with the oldest versions it allows, and the newest.

    python tests/benchmarks/bounds.py lowest newest [--extra NAME ...] [--tests PATH ...] [--python PROGRAM] [...]

For each word and extra it makes an environment below build/bounds, prints which versions stand in it beside what
pyproject.toml allows, and runs the tests there, a part at a time. `lowest`: every dependency at its lower bound, or
at the lowest version with which the others can be installed, which is then said; what those need in turn is the newest,
but for HELD. `newest`: all the newest. torch is that of constraints.txt, since other versions come with gigabytes of
CUDA; --own-torch takes the one that the interpreter (--python) already has. --extra: dev by default, with all tests;
others are tried by their smallest use, and "none" by tests that run with the package alone, at bounds that extras would
raise. --uv: the program that resolves. Ends with 1 where a test fails. On two cores an environment takes 2 to 8
minutes to install, and all tests about 20: `make bounds` about an hour and a quarter.

What raised a bound: transformers 5.0 can't make Qwen3-VL-MoE, 5.1 to 5.3 have no processors that read pictures without
torchvision, 5.4 writes LLaVA's embedding under a name that nothing reads; it needs huggingface_hub 1.5, and its Trainer
accelerate 1.3; Pillow 10.0 does not tell whether a picture is transparent; pydantic 2.10 can not read recipes by name;
typer 0.15 takes no literals; logs of inspect_ai 0.3.150 can't be marked invalid; narwhals 1.25.0 makes no frame by the
name of a library; httpx 0.27 passes over certificates that are not there; gguf 0.11 fails with NumPy 2, and 0.16.0
knows no Qwen3-MoE; pyarrow 26, which lm_eval brings, needs NumPy 2. Of what development needs: inspect_ai's frames fail
with pandas 2.1; PEFT 0.18 saves adapters of fused experts in shapes that the base does not have, 0.19 does not run with
transformers 5.6; hypothesis 6.104 makes no strings of 8 KB; pytest-xdist 3.7 can't keep the order of files.
"""

import argparse
import itertools
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOUSE = Path(__file__).parents[2]
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
ROOT = HOUSE / "build" / "bounds"
HELD = ("pyarrow<26",)  # the newest that runs with NumPy 1.26, which it does not say
COMPILED = ("pydantic-core", "llvmlite", "tokenizers", "hf-xet")  # what those that we ask for need in turn
RUNNERS = (
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.8",
    "hypothesis>=6.112",
    "setuptools>=77",
    "ruff>=0.9",
    "psutil>=6.0",
)
# All but the demo, whose arithmetic is that of the others and takes minutes.
PARTS = (
    "tests/surgery", "tests/figures", "tests/probes", "tests/families", "tests/cli", "tests/test_contributing.py",
    "tests/test_face.py", "tests/test_readme.py", "tests/test_walls.py",
)  # fmt: skip
# Extra -> what shows that it works; "none" is the package alone. vision is not there: torchvision from PyPI does not
# run beside the CPU build of torch.
USES = {
    "none": ("tests/test_contributing.py", "tests/figures", "tests/cli/test_main.py"),
    "accelerate": ("tests/probes/models/test_dtypes.py",),
    "gguf": ("tests/cli/commands/test_convert.py",),
    "png": ("tests/cli/view/test_pictures.py",),
    "inspect": ("tests/probes/harnesses/test_inspect_task.py",),
    "lm-eval": ("tests/probes/harnesses/test_lm_eval_reader.py",),
    "ray": ("tests/benchmarks/ray_merge.py --parts bytes",),
    "trackio": ("tests/benchmarks/trackers.py trackio",),
    "wandb": ("tests/benchmarks/trackers.py wandb",),
    "mlflow": ("tests/benchmarks/trackers.py mlflow",),
}


def allowed(extra: str) -> dict[str, Requirement]:
    """Canonical name -> what pyproject.toml allows of it, with one extra or none."""
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, ())]
    lines += () if extra == "dev" else RUNNERS
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def told(python: Path, name: str) -> str | None:
    """The version of a package in an environment; None where it has none."""
    ask = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    done = subprocess.run([python, "-c", ask, name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def resolve(uv: Path, python: Path, which: str, asked: dict[str, Requirement], torch: str) -> dict[str, str]:
    """Name -> version of everything that the environment gets."""
    wanted = ROOT / f"{which}.in"
    wanted.write_text("".join(f"{each}\n" for each in asked.values()) + f"torch=={torch}\n")
    how = ("--resolution", "lowest-direct" if which == "lowest" else "highest", "--python", str(python))
    # A version without a wheel for this Python would be built from its sources.
    wheels = [word for name in (*asked, *COMPILED) for word in ("--only-binary", name)]
    held = ROOT / "held.txt"
    held.write_text("".join(f"{each}\n" for each in (HELD if which == "lowest" else ())))
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *how, *wheels, "-c", held, wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))


def install(home: Path, python: str, extra: str, pins: dict[str, str], own_torch: bool) -> Path:
    """Make the environment; its interpreter. own_torch: with the interpreter's own packages below ours."""
    below = ["--system-site-packages"] if own_torch else []
    subprocess.run([python, "-m", "venv", "--clear", *below, home], check=True)
    file = home / "pins.txt"
    # What a CUDA build of torch would need is not pinned: the CPU build needs none of it.
    skipped = re.compile(r"torch$|triton$|nvidia-|cuda-")
    file.write_text("".join(f"{name}=={version}\n" for name, version in pins.items() if not skipped.match(name)))
    package = str(HOUSE) if extra == "none" else f"{HOUSE}[{extra}]"
    more = () if extra == "dev" else RUNNERS
    torch = [] if own_torch else ["torch==" + pins["torch"]]
    pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", file]
    subprocess.run([*pip, "-e", package, *more, *torch], check=True)
    return home / "bin" / "python"


def table(python: Path, asked: dict[str, Requirement], which: str) -> None:
    """Print what stands in an environment. A star: it is not the version that the bound names."""
    for name, requirement in sorted(asked.items()):
        version = told(python, name)
        bound = next((each.version for each in requirement.specifier if each.operator == ">="), "")
        above = which == "lowest" and version is not None and not f"{version}.0.0".startswith(f"{bound}.")
        print(f"  {'*' if above else ' '} {name:20} {requirement.specifier!s:12} {version}")


def test(python: Path, parts: Sequence[str], processes: int) -> bool:
    """Run the tests part by part, and print a line a part; whether all passed."""
    good = True
    for part in parts:
        began = time.perf_counter()
        spread = ("-p", "no:xdist") if processes == 1 else ("-n", str(processes), "--dist", "loadfile")
        options = ("-q", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", *spread)
        # A benchmark is a program, with words of its own.
        program = part.split() if part.startswith("tests/benchmarks/") else ["-m", "pytest", *options, part]
        done = subprocess.run([python, *program], cwd=HOUSE, capture_output=True, text=True, check=False)
        good &= done.returncode == 0
        last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
        print(f"  {part:28} {time.perf_counter() - began:6.0f} s  {last}", flush=True)
        (ROOT / f"{python.parents[1].name}-{re.sub(r'[^a-z_]', '-', part)}.log").write_text(done.stdout + done.stderr)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="+", choices=("lowest", "newest"))
    parser.add_argument("--tests", nargs="+", metavar="PATH")
    parser.add_argument("--extra", nargs="+", default=["dev"], metavar="NAME")
    parser.add_argument("--python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--own-torch", action="store_true")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--uv", type=Path, default=ROOT / "tools" / "bin" / "uv", metavar="PATH")
    given = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    good = True
    for extra, which in itertools.product(given.extra, given.which):
        asked = allowed(extra)
        torch = told(given.python, "torch") if given.own_torch else metadata.version("torch").partition("+")[0]
        pins = resolve(given.uv, given.python, which, asked, str(torch).partition("+")[0])
        python = install(ROOT / which, given.python, extra, pins, given.own_torch)
        version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{which}, {extra}: {version}")
        table(python, asked, which)
        good &= test(python, given.tests or USES.get(extra, PARTS), given.processes)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
