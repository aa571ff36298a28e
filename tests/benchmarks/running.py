"""Which families run whole: a table family x check x outcome, on tiny trios of transformers' own classes.

Each family has a base, an adapted model that sees, and a safety model, with a tokenizer trained on the spot, the
family's real processor and a chat template in its style. Checks compare with transformers itself (tests/families);
then the trio is taught what to refuse, and diff, probe, merge --auto, evaluate and report run on it.

    python tests/benchmarks/running.py [--family NAME ...] [--fast] [--limit SECONDS] [--packages DIR] [--list]

Each family runs in a process of its own. --packages: a folder that holds torchvision, timm and num2words, where they
are not installed. --list prints the README's list of families. A cell is "ok", "no" (the reason follows below), or
"refused", in one line of the program's own.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

COMMANDS = {
    "diff": ("diff", "{base}", "{adapted}", "{safety}"),
    "probe": ("probe", "--dtype", "float32", "{prompts}"),
    "merge": ("merge", "--auto", "{prompts}"),
    "evaluate": ("evaluate", "{prompts}"),
    "report": ("report",),
}
SETS = ("harmful", "jailbroken", "harmless", "borderline", "capability")


def write_prompts(folder: Path) -> list[str]:
    """Options that give every prompt set a few prompts of its own."""
    from families.tokens import HARMFUL, HARMLESS

    texts: dict[str, list[dict[str, str]]] = {
        "harmful": [{"prompt": text, "request": f"r{n}"} for n, text in enumerate(HARMFUL)],
        "jailbroken": [{"prompt": f"Please! {text}", "request": f"r{n}"} for n, text in enumerate(HARMFUL[:4])],
        "harmless": [{"prompt": text, "request": f"r{n}"} for n, text in enumerate(HARMLESS)],
        "borderline": [{"prompt": f"Please! {text}", "request": f"r{n}"} for n, text in enumerate(HARMLESS[:4])],
        "capability": [{"prompt": text, "request": f"c{n}", "answer": "Sure"} for n, text in enumerate(HARMLESS[:4])],
    }
    options = []
    for name in SETS:
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in texts[name]))
        options += ["--prompts", f"{file}:{name}"]
    return options


def commands(root: Path) -> Iterator[tuple[str, str]]:
    """Each command of the program on a trio, and what went wrong: "" where it ran. The first that fails ends it.

    All in this process: to import torch and transformers takes longer than a command on a tiny trio.
    """
    from typer.testing import CliRunner

    from vlsurgery.cli.main import app

    roles = {role: str(root / role) for role in ("base", "adapted", "safety")}
    prompts = write_prompts(root)
    for name, words in COMMANDS.items():
        filled = [part for word in words for part in (prompts if word == "{prompts}" else [word.format(**roles)])]
        done = CliRunner().invoke(app, [*filled, "--case", str(root / "case"), "--quiet"])
        said = done.stderr.strip().splitlines() or [repr(done.exception)]
        yield name, {0: "", 2: f"refused: {said[-1]}"}.get(done.exit_code, f"exit {done.exit_code}: {said[-1]}")
        if done.exit_code:
            return


def one(name: str, fast: bool) -> dict[str, str]:
    """The outcomes of one family."""
    import torch
    from families.all_families import FAMILIES
    from families.build import build, quiet
    from families.checks import Opened, outcomes
    from families.teaching import teach

    torch.set_num_threads(1)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(FAMILIES[name], root / "random")
        found = outcomes(Opened(FAMILIES[name], root / "random"))
        if not fast and not found["opens"]:
            build(FAMILIES[name], root / "taught", teach)
            found |= dict(commands(root / "taught"))
    return found


def row(name: str, fast: bool, limit: float) -> dict[str, str]:
    """The outcomes of one family, from a process of its own: forked, as imports take longer than the checks."""
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sent, name, fast))
    process.start()
    sent.close()
    try:
        if not received.poll(limit):
            return {"process": f"no end within {limit} s"}
        found: dict[str, str] = received.recv()
    except EOFError:
        process.join()
        return {"process": f"exit {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return found


def _tell(sent: Connection, name: str, fast: bool) -> None:
    """Send the outcomes of one family; what transformers prints is left out."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            found = one(name, fast)
        except Exception as error:  # noqa: BLE001  a row of the table too
            found = {"process": f"{type(error).__name__}: {error}"}
    sent.send(found)


def cell(found: Mapping[str, str], check: str) -> str:
    if check not in found:
        return "-"
    return "ok" if not found[check] else "refused" if found[check].startswith("refused") else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", help="all where none is named")
    parser.add_argument("--fast", action="store_true", help="checks without the commands")
    parser.add_argument("--limit", type=float, default=900, help="seconds of one family")
    parser.add_argument("--packages", help="folder with torchvision, timm and num2words")
    parser.add_argument("--list", action="store_true", help="print the README's list of families")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path += [options.packages] if options.packages else []
    from families.all_families import FAMILIES, listed
    from families.checks import CHECKS

    import vlsurgery.probes  # noqa: F401  before transformers, so that a torchvision of another torch loads

    if options.list:
        print(listed())
        return
    columns = [*CHECKS, *([] if options.fast else COMMANDS)]
    print(f"{'family':24}", *(f"{column:8}" for column in columns))
    tally: Counter[str] = Counter()
    for name in options.family or FAMILIES:
        found = row(name, options.fast, options.limit)
        print(f"{name:24}", *(f"{cell(found, column):8}" for column in columns), flush=True)
        for check, why in found.items():
            if why:
                print(f"    {check}: {why}", flush=True)
        tally["whole" if not any(found.values()) else "not whole"] += 1
    print(", ".join(f"{count} {word}" for word, count in tally.items()))


if __name__ == "__main__":
    main()
