"""Whether a merge survives being killed at any moment, and a disk that fills up.

Run it as `python tests/benchmarks/merge_faults.py`. It merges two synthetic checkpoints with the program itself, kills
that with SIGKILL at a random moment after it began to write (before that there is nothing to lose), gives the same
command again, and compares every file with an uninterrupted run.
Every second time a former merge lies under the target's name: until the new one is complete it must stay as it was.
Then the same on a disk of its own that somebody else fills up, where this process may mount one.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.writer.journal import JOURNAL
from vlsurgery.surgery.writer.output_directory import partial_of

HOUSE = Path(__file__).parent.parent.parent
HIDDEN, INNER, VOCABULARY = 1024, 2816, 8000
CONFIG = {"model_type": "llama", "hidden_size": HIDDEN, "vocab_size": VOCABULARY, "tie_word_embeddings": False}


def tensors(layers: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """A Llama in bfloat16, 26 MB a layer and 33 MB around them."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{stem}.mlp.{part}_proj.weight": (INNER, HIDDEN) for part in ("gate", "up")}
        shapes[f"{stem}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{stem}.{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
    shapes["model.norm.weight"] = (HIDDEN,)
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        yield name, torch.randn(shape, generator=generator).bfloat16()


def make(path: Path, layers: int, shards: int, seed: int) -> None:
    path.mkdir()
    weights = dict(tensors(layers, seed))
    names = list(weights)
    files = [f"model-{1 + at * shards // len(names):05}-of-{shards:05}.safetensors" for at in range(len(names))]
    weight_map = dict(zip(names, files, strict=True))
    for file in sorted(set(files)):
        held = {name: weights[name] for name in names if weight_map[name] == file}
        save_file(held, path / file, metadata={"format": "pt"})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))


def write_recipe(path: Path, base: Path, adapted: Path, share: float) -> None:
    """An order to blend two checkpoints."""
    refs = {role: Checkpoint.open(folder) for role, folder in (("base", base), ("adapted", adapted))}
    lines = [
        "schema: vlsurgery/recipe/1",
        "checkpoints:",
        *(f"  {role}: {{path: {ref.location}, identity: '{ref.identity}'}}" for role, ref in refs.items()),
        "like: adapted",
        "method: blend",
        f"coefficients: {{default: {{base: {share}}}}}",
        "dtype: as like",
        "seed: 0",
    ]
    path.write_text("\n".join(lines) + "\n")


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "vlsurgery.cli.main", "merge", "--recipe", str(recipe), "-o", str(out), "--quiet"]


def begin(recipe: Path, out: Path) -> "subprocess.Popen[bytes]":
    """A merge that has begun to write, or ended before anybody saw it do so."""
    process = subprocess.Popen(command(recipe, out), cwd=HOUSE, stdout=subprocess.DEVNULL)
    while process.poll() is None and not partial_of(out).exists():
        time.sleep(0.001)
    return process


def merge(recipe: Path, out: Path) -> float:
    """A whole merge; how many seconds it took from the first write on."""
    process = begin(recipe, out)
    start = time.perf_counter()
    if process.wait():
        raise SystemExit(f"the merge by {recipe} failed")
    return time.perf_counter() - start


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def finished(out: Path) -> dict[str, int]:
    """The shards that the journal says are finished: file -> inode."""
    folder = partial_of(out)
    if not (folder / JOURNAL).exists():
        return {}
    entries = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines() if line.endswith("}")]
    return {entry["file"]: (folder / entry["file"]).stat().st_ino for entry in entries if "file" in entry}


def kill_once(recipe: Path, out: Path, shards: int, delay: float) -> bool:
    """Kill a merge so many seconds after it finished so many shards; whether it was still at work."""
    process = begin(recipe, out)
    while process.poll() is None and partial_of(out).exists() and lines(out) <= shards:
        time.sleep(0.0002)
    time.sleep(delay)
    process.kill()
    return process.wait() == -signal.SIGKILL


def lines(out: Path) -> int:
    """How far the journal is: a line for the order, and one for each finished shard."""
    try:
        return (partial_of(out) / JOURNAL).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def rounds(options: argparse.Namespace, folder: Path, recipe: Path, seconds: float) -> bool:
    """Kill and go on, again and again; prints what came of it. Whether all went well."""
    expected, chance = digests(folder / "whole"), random.Random(options.seed)
    old = digests(folder / "former")
    killed = same = untouched = shards = reused = begun = 0
    for number in range(options.kills):
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        if number % 2:
            shutil.copytree(folder / "former", out)
        moment = chance.randrange(options.shards), chance.uniform(0, seconds / options.shards)
        killed += kill_once(recipe, out, *moment)
        begun += partial_of(out).exists()
        now = digests(out) if out.exists() else {}
        untouched += now in ({}, old, expected) or {**now, JOURNAL: ""} == {**expected, JOURNAL: ""}
        before = finished(out)
        merge(recipe, out)
        same += digests(out) == expected and not partial_of(out).exists()
        shards += len(before)
        reused += sum((out / file).stat().st_ino == inode for file, inode in before.items())
    print(f"killed at work {killed} of {options.kills}, {begun} of them before OUT.partial became OUT")
    print(f"target as it was, or complete: {untouched} of {options.kills}")
    print(f"the same command then gave the bytes of an uninterrupted run: {same} of {options.kills}")
    print(f"finished shards kept as they were: {reused} of {shards}", flush=True)
    return untouched == same == options.kills and reused == shards


def fill_a_disk(folder: Path, recipe: Path, nbytes: int) -> bool:
    """Merge on a disk that is full after the first shards; make room, and merge again."""
    disk, result = folder / "disk", folder / "from-disk"
    disk.mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    out, merge_there = disk / "out", shlex.join(command(recipe, disk / "out"))
    script = f"""
        mount -t tmpfs -o size={nbytes // 1000 + 20_000}k tmpfs {disk} || exit 77
        head -c 40000000 /dev/zero > {disk}/junk
        {merge_there}; echo "no room from the beginning: exit $?, left: $(ls {disk} | tr '\\n' ' ')"
        rm {disk}/junk
        ( until grep -q sha256 {out}.partial/{JOURNAL} 2> /dev/null; do sleep .01; done; cat /dev/zero > {disk}/junk ) &
        {merge_there}; echo "full in the middle: exit $?, left: $(ls {disk} | tr '\\n' ' ')"
        wait; rm {disk}/junk
        {merge_there}; echo "room again: exit $?"
        cp -r {out} {result}
    """
    ran = subprocess.run([*unshare, "sh", "-c", script], cwd=HOUSE, capture_output=True, text=True, check=False)
    if ran.returncode == 77 or shutil.which("unshare") is None:
        print(f"no disk was filled: this process may not mount one ({ran.stderr.strip()})")
        return True
    print(ran.stdout + ran.stderr, end="")
    same = result.exists() and digests(result) == digests(folder / "whole")
    print(f"the bytes of an uninterrupted run: {'yes' if same else 'NO'}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--layers", type=int, default=12, help="26 MB each")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path, help="where to work [default: the system's place for temporary files]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        for seed, role in enumerate(("base", "adapted")):
            make(folder / role, options.layers, options.shards, seed)
        recipe, former = folder / "recipe.yaml", folder / "former.yaml"
        write_recipe(recipe, folder / "base", folder / "adapted", 0.3)
        write_recipe(former, folder / "base", folder / "adapted", 0.6)
        merge(former, folder / "former")
        seconds = merge(recipe, folder / "whole")
        nbytes = sum(path.stat().st_size for path in (folder / "whole").iterdir())
        print(
            f"a merge of {nbytes / 1e6:.0f} MB in {options.shards} shards, {seconds:.2f} s from the first write on",
            flush=True,
        )
        well = rounds(options, folder, recipe, seconds)
        well &= fill_a_disk(folder, recipe, nbytes)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
