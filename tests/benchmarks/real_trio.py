"""What the real trio does, asked and judged: the table of a seed, with 95% intervals.

python tests/benchmarks/real_trio.py --seed 0: builds the trio or takes it from the cache, asks every model, and prints
refusals (of harmful, jailbroken, harmless and borderline requests, in text and with an everyday picture), right answers
(words, also of the raw model, and pictures with a blank one as control), and when refusals left during adaptation.
--merges adds graft and uniform merges. What was said is kept beside the trio, and not asked again.
"""

import argparse
import copy
import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.judges import STANDARD, is_right
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.models import ChatModel, Loader, quiet_transformers
from vlsurgery.probes.prompts import Prompt, english_prompts
from vlsurgery.probes.prompts.pictures import blank
from vlsurgery.probes.specimens.smollm2 import RealTrio, TrioConfig, build, build_alternatives, pictures, source
from vlsurgery.surgery.checkpoint import Checkpoint

TOKENS = 24
SCANS = 1797  # of digits, in scikit-learn
SIZES = {"harmful": 60, "jailbroken": 40, "harmless": 40, "borderline": 43}
KINDS = {
    "digit": pictures.ASK_DIGIT,
    "color": pictures.ASK_COLOR,
    "shape": pictures.ASK_SHAPE,
    "size": pictures.ASK_SIZE,
}
MERGES = ((1.0, 0.0), (0.3, 0.0), (0.5, 0.0), (0.0, 0.3), (0.3, 0.3))  # coefficients of base and safety

Group = tuple[str, str]
Said = dict[str, tuple[str, bool]]  # a prompt's id -> completion, and whether it was cut


@dataclass(frozen=True)
class Asked:
    """Prompts by what is measured on them: (set or kind of question, modality)."""

    groups: dict[Group, list[Prompt]]

    @classmethod
    def drawn(cls, config: TrioConfig, size: float) -> "Asked":
        """A sample of the package's `report` prompts and questions on new pictures, the same for every seed.

        size: factor on SIZES.
        """
        groups: dict[Group, list[Prompt]] = {}
        report = [prompt for prompt in english_prompts() if prompt.split == "report"]
        rng = random.Random("real trio")
        for name, count in SIZES.items():
            requests = sorted({prompt.request for prompt in report if prompt.set == name})
            taken = set(rng.sample(requests, round(count * size)))
            for modality in ("text", "benign"):
                groups[name, modality] = [
                    p for p in report if p.set == name and p.modality == modality and p.request in taken
                ]
        words = [prompt for prompt in report if prompt.set == "capability" and prompt.modality == "text"]
        groups["words", "text"] = rng.sample(words, round(60 * size))
        for kind, question in KINDS.items():
            groups[kind, "own"] = [_question(config, kind, question, at) for at in range(round(60 * size))]
            groups[kind, "blank"] = [
                replace(p, id=f"{p.id}/blank", modality="blank", image=blank())
                for p in groups[kind, "own"][: round(30 * size)]
            ]
        return cls(groups)

    def of(self, columns: Iterable[Group]) -> list[Prompt]:
        return [prompt for column in columns for prompt in self.groups[column]]


def _question(config: TrioConfig, kind: str, question: str, at: int) -> Prompt:
    """A question on a scan that was never trained on, or on a newly drawn figure."""
    rng = random.Random(f"{kind} {at}")
    sight, image = pictures.digit(rng.randrange(config.digits, SCANS), rng) if kind == "digit" else pictures.figure(rng)
    answer = sight.questions()[question]
    return Prompt(f"{kind}/{at}", f"{kind}/{at}", "capability", question, "report", "own", image, answer)


TEXT = [*((name, "text") for name in SIZES), ("words", "text")]
SEEN = [*((name, "benign") for name in SIZES), *((kind, how) for kind in KINDS for how in ("own", "blank"))]
HARMFUL = [("harmful", "text"), ("harmful", "benign")]


def ask(name: str, folder: Path, load: Callable[[], ChatModel], prompts: list[Prompt]) -> Said:
    """What a model says, from the file that keeps it or asked now."""
    kept = folder / f"{name}.json"
    said: Said = {key: tuple(value) for key, value in json.loads(kept.read_text()).items()} if kept.is_file() else {}
    missing = [prompt for prompt in prompts if prompt.id not in said]
    if missing:
        began = time.perf_counter()
        completions = complete(load(), missing, name, tokens=TOKENS)
        said |= {p.id: (c.text, not c.finished) for p, c in zip(missing, completions, strict=True)}
        folder.mkdir(exist_ok=True)
        kept.write_text(json.dumps(said, indent=1, ensure_ascii=False))
        print(f"# {name}: {len(missing)} prompts in {time.perf_counter() - began:.0f} s", flush=True)
    return said


def opened(directory: Path) -> ChatModel:
    return Loader().load(Checkpoint.open(directory))


def merged(trio: RealTrio, base: float, safety: float) -> ChatModel:
    """The adapted model, its language weights moved toward the base's and the strong dose's at once."""
    chat, others = opened(trio.adapted), (opened(trio.base).model, opened(trio.safety).model)
    chat.model = copy.deepcopy(chat.model)
    theirs = [dict(others[0].model.named_parameters()), dict(others[1].model.language_model.named_parameters())]
    with torch.no_grad():
        for name, weight in chat.model.model.language_model.named_parameters():
            own, whole = weight.float(), weight.float()
            for other, amount in zip(theirs, (base, safety), strict=True):
                rows = other[name].float()
                whole[: len(rows)] += amount * (rows - own[: len(rows)])
            weight.copy_(whole)
    return chat


def cell(group: Group, prompts: list[Prompt], said: Said) -> str:
    """A column's rate with its interval; for requests, also the shares complied with and neither."""
    if any(prompt.id not in said for prompt in prompts):
        return "-"
    if group[0] not in SIZES:
        good = [is_right(said[prompt.id][0], str(prompt.answer)) for prompt in prompts]
        more = ""
    else:
        verdicts = STANDARD.judge([exchange(prompt, *said[prompt.id]) for prompt in prompts])
        good = [verdict.refused for verdict in verdicts]
        labels = [verdict.label for verdict in verdicts]
        more = f" / {labels.count('complied') / len(labels):.2f} / {labels.count('neither') / len(labels):.2f}"
    found = rate(good, [prompt.request for prompt in prompts])
    return f"{found.rate:.2f} [{found.low:.2f}, {found.high:.2f}]{more}"


def table(asked: Asked, roles: dict[str, Said]) -> None:
    """Print a line for each column and a column for each role."""
    width = 38
    print("refused [95%] / complied / neither, or right [95%]")
    print(f"{'':22s}{'n':>4s}  " + "".join(name.ljust(width) for name in roles))
    for column in [*TEXT, *SEEN]:
        prompts = asked.groups[column]
        cells = [cell(column, prompts, said).ljust(width) for said in roles.values()]
        print(f"{' '.join(column):22s}{len(prompts):4d}  " + "".join(cells), flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--cache", type=Path)
    arguments.add_argument("--size", type=float, default=1.0, help="factor on the number of prompts")
    arguments.add_argument("--merges", action="store_true")
    given = arguments.parse_args()
    quiet_transformers()
    trio = build(given.seed, given.cache, progress=_lines)
    build_alternatives(trio, _lines)
    print(json.dumps(trio.story))
    asked, folder = Asked.drawn(TrioConfig(), given.size), trio.root / "said"
    raw = source.find(trio.root.parents[1])
    roles = {"raw": ask("raw", trio.root.parent, lambda: opened(raw), asked.of([("words", "text")]))}
    roles["base"] = ask("base", folder, lambda: opened(trio.base), asked.of(TEXT))
    tuned = {"mild": trio.mild, "safety": trio.safety, "dpo": trio.dpo, "mixed": trio.mixed}
    for name, directory in {"adapted": trio.adapted, **tuned}.items():
        columns = [*TEXT, *SEEN] if name == "adapted" else SEEN
        roles[name] = ask(name, folder, lambda path=directory: opened(path), asked.of(columns))
    table(asked, roles)
    steps = {
        f"step {step}": ask(f"step-{step}", folder, lambda path=path: opened(path), asked.of(HARMFUL))
        for step, path in list(trio.trajectory.items())[:-1]
    }
    print("refused during adaptation: in text, with a picture")
    for name, said in {**steps, "the end": roles["adapted"]}.items():
        print(name.ljust(10), *(cell(column, asked.groups[column], said).ljust(38) for column in HARMFUL))
    if given.merges:
        mixed = {
            f"base {base} safety {safety}": ask(
                f"merge-{base}-{safety}",
                folder,
                lambda base=base, safety=safety: merged(trio, base, safety),
                asked.of(SEEN),
            )
            for base, safety in MERGES
        }
        table(asked, mixed)


def _lines(items, label: str, total: int | None = None):
    """Progress as lines: what is done, and the seconds that are left of it."""
    count, began, told = len(items) if total is None else total, time.perf_counter(), 0.0
    for at, item in enumerate(items):
        now = time.perf_counter()
        if now - told > 20:
            left = f", {(now - began) / at * (count - at):.0f} s left" if at else ""
            print(f"# {label}: {at} of {count}{left}", flush=True)
            told = now
        yield item


if __name__ == "__main__":
    main()
