"""How fast whole merges are, beside mergekit 0.1.5 and beside bare scripts, on the same files in the same run.

    python tests/benchmarks/merge_speed.py [--gb 2.2|4.4|13.5] [--methods linear,ties] [--data DIR] [--venv DIR]

Synthetic checkpoints are made where they are missing. mergekit lives in an environment of its own. For each method it
prints the seconds of both, their ratio and the ratio that is asked for, and the peak of resident memory, which must
stay below 1024 MB; then linear beside a bare script of its own, and beside plain copying of the bytes that are read and
written. Before each run the files are read once; runs alternate, and the median of --rounds counts. With --gb 13.5 only
linear is measured, beside the scripts: mergekit would take hours. With --gb 4.4, a model of two tensors of 2.1 GB, only
the memory of every method is.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from platformdirs import user_cache_path
from rivals import mergekit_python
from timing import Run, middle, run, vlsurgery

# Method -> how many times as fast as mergekit it is to be.
ASKED = {
    "linear": 4.5, "task_arithmetic": 4.5, "ties": 12.0, "dare_ties": 12.0, "della": 12.0, "slerp": 4.0,
    "dare_linear": 4.0, "della_linear": 4.0, "breadcrumbs": 4.0, "breadcrumbs_ties": 4.0, "model_stock": 4.0,
}  # fmt: skip
OURS_ALONE = ("blend", "safelora", "safemerge", "resta")
THINNED = ("ties", "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties")
ROLES = ("base", "adapted", "safety", "other")
LIMIT_MB = 1024

BARE = """
import mmap, pathlib, sys
import torch
one, other, out = map(pathlib.Path, sys.argv[1:])
out.mkdir()
step = 1 << 24
for file in sorted(one.glob("*.safetensors")):
    with open(file, "rb") as a, open(other / file.name, "rb") as b, open(out / file.name, "wb") as target:
        x, y = (mmap.mmap(each.fileno(), 0, access=mmap.ACCESS_READ) for each in (a, b))
        start = 8 + int.from_bytes(x[:8], "little")
        target.write(x[:start])
        for place in range(start, len(x), step):
            count = min(step, len(x) - place) // 2
            first, second = (torch.frombuffer(each, dtype=torch.bfloat16, count=count, offset=place) for each in (x, y))
            target.write(torch.lerp(first.float(), second.float(), 0.5).bfloat16().view(torch.uint8).numpy().data)
"""
COPY = """
import pathlib, sys
one, other, out = map(pathlib.Path, sys.argv[1:])
out.mkdir()
buffer = bytearray(1 << 24)
for file in sorted(one.glob("*.safetensors")):
    with open(other / file.name, "rb", buffering=0) as read:
        while read.readinto(buffer):
            pass
    with open(file, "rb", buffering=0) as read, open(out / file.name, "wb", buffering=0) as target:
        while count := read.readinto(buffer):
            target.write(memoryview(buffer)[:count])
"""


def models_of(method: str) -> list[str]:
    """The roles that a method merges beside the base; the first one where it has no base."""
    if method in ("slerp", "linear", "blend"):
        return ["adapted", "safety"][: 1 if method == "slerp" else 2]
    return ["adapted", "safety"] if method != "safemerge" else ["adapted", "safety", "other"]


def ours(method: str, data: Path, out: Path) -> list[str | Path]:
    models = models_of(method)
    base = [] if method == "linear" else ["--base", data / "base"]
    more = ["--density", "0.5"] if method in THINNED else []
    weight = [] if method in ("model_stock", "safelora", "safemerge", "resta") else ["--weight", "0.5"]
    paths = [data / model for model in models]
    return vlsurgery("merge", "--method", method, *paths, *base, *more, *weight, "--quiet", "-o", out)


def theirs(python: Path, method: str, data: Path, folder: Path) -> list[str | Path]:
    settings = {"weight": 0.5} if method not in ("slerp", "model_stock") else {}
    if method in THINNED:
        settings["density"] = 0.5
    if method == "slerp":
        settings["t"] = 0.5
    order = {
        "merge_method": method, "dtype": "bfloat16", "parameters": settings,
        "models": [{"model": str(data / model)} for model in models_of(method)],
    }  # fmt: skip
    if method != "linear":
        order["base_model"] = str(data / "base")
    file = folder / f"{method}.yaml"
    file.write_text(yaml.safe_dump(order))
    return [python.parent / "mergekit-yaml", file, folder / "theirs", "--quiet"]


def read_once(data: Path) -> None:
    """Whoever comes first, or after a long run, would read some of the files from the disk."""
    for file in sorted(data.glob("*/*.safetensors")):
        with file.open("rb", buffering=0) as opened:
            while opened.read(1 << 24):
                pass


def alternate(
    commands: Sequence[Sequence[str | Path]], outs: Sequence[Path], rounds: int, data: Path | None = None
) -> list[Run]:
    """The middle run of each command, each with the files of `data` in the page cache; what they wrote is removed."""
    runs: list[list[Run]] = [[] for _ in commands]
    for _ in range(rounds):
        for each, command, out in zip(runs, commands, outs, strict=True):
            shutil.rmtree(out, ignore_errors=True)
            if data is not None:
                read_once(data)
            each.append(run(command))
            shutil.rmtree(out, ignore_errors=True)
    return [middle(each) for each in runs]


def show(name: str, mine: Run, rival: str, other: Run, ratio: float, bound: str, met: bool) -> bool:
    kept = met and mine.peak < LIMIT_MB
    sides = [f"{who:17} {each.seconds:7.1f} s {each.peak:6.0f} MB" for who, each in ((name, mine), (rival, other))]
    print(*sides, f"{ratio:6.2f} {bound:8}", "met" if kept else "MISSED", sep="   ", flush=True)
    return kept


def beside_mergekit(options: argparse.Namespace, data: Path, folder: Path) -> bool:
    python, good = (mergekit_python(options.venv) if options.gb == 2.2 else Path()), True
    for method in options.methods:
        if method in OURS_ALONE or options.gb != 2.2:
            (mine,) = alternate([ours(method, data, folder / "ours")], [folder / "ours"], 1)
            print(f"{method:17} {mine.seconds:7.1f} s {mine.peak:5.0f} MB", flush=True)
            good &= mine.peak < LIMIT_MB
            continue
        commands = [ours(method, data, folder / "ours"), theirs(python, method, data, folder)]
        mine, other = alternate(commands, [folder / "ours", folder / "theirs"], options.rounds, data)
        ratio = other.seconds / mine.seconds
        good &= show(method, mine, "mergekit", other, ratio, f">= {ASKED[method]}", ratio >= ASKED[method])
    return good


def beside_scripts(options: argparse.Namespace, data: Path, folder: Path) -> bool:
    out, good = folder / "out", True
    paths = [data / "adapted", data / "safety", out]
    scripts = {"bare script": (BARE, 1.6), "copying": (COPY, 1.3)}
    if options.gb < 10:
        del scripts["copying"]
    for name, (script, most) in scripts.items():
        commands = [ours("linear", data, out), [sys.executable, "-c", script, *paths]]
        mine, other = alternate(commands, [out, out], options.rounds, data if options.gb < 10 else None)
        ratio = mine.seconds / other.seconds
        good &= show("linear", mine, name, other, ratio, f"<= {most}", ratio <= most)
    return good


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, choices=[2.2, 4.4, 13.5], default=2.2)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[*ASKED, *OURS_ALONE])
    parser.add_argument("--data", type=Path, default=user_cache_path("vlsurgery") / "synthetic")
    parser.add_argument("--venv", type=Path, help="an environment that has mergekit 0.1.5")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    data = options.data / f"{options.gb}GB"
    roles = ROLES if options.gb < 10 else models_of("linear")
    missing = [role for role in roles if not (data / role / "config.json").exists()]
    if missing:
        # In a process of its own: a child's peak of memory counts its parent's, and this one is to stay small.
        generator = Path(__file__).with_name("synthetic.py")
        run([sys.executable, generator, data, "--gb", str(options.gb), "--roles", ",".join(roles)])
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        folder = Path(name)
        good = options.gb == 4.4 or beside_scripts(options, data, folder)
        if options.gb < 10:
            good &= beside_mergekit(options, data, folder)
    sys.exit(not good)


if __name__ == "__main__":
    main()
