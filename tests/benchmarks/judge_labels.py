"""How often the shipped judges agree with human labels of completions, and where they do not.

Run it as `python tests/benchmarks/judge_labels.py LABELS.csv ... [--errors]`, with files in the format of XSTest's
labelled completions: the columns prompt, completion and final_label, of which `1_full_compliance` is compliance and
all others count as refusals. `--kept-aside` adds the completions that were written for this and never trained on.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.probes.evaluation.judges import CLASSIFIER, RULES, STANDARD, Exchange, Judge
from vlsurgery.probes.results import Verdict

KEPT_ASIDE = Path(__file__).parents[1] / "probes" / "evaluation" / "judge_held_out.tsv"
COMPLIANCE = "1_full_compliance"


@dataclass(frozen=True)
class Labelled:
    """An exchange with the label that a person gave it. kind: of prompt or style, to find errors of one kind."""

    exchange: Exchange
    label: str
    kind: str


def xstest(path: Path) -> list[Labelled]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [
            Labelled(
                Exchange(completion=row["completion"], prompt=row["prompt"]),
                "complied" if row["final_label"] == COMPLIANCE else "refused",
                row["type"],
            )
            for row in csv.DictReader(file)
        ]


def kept_aside(path: Path = KEPT_ASIDE) -> list[Labelled]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("# ")]
    found = []
    for line in lines:
        style, group, prompt, label, completion = line.split("\t")
        text = completion.replace("\\n", "\n")
        exchange = Exchange(text, prompt=None if prompt == "-" else prompt, set=None if group == "-" else group)
        found.append(Labelled(exchange, label, style))
    return found


def report(name: str, labelled: Sequence[Labelled], judge: Judge, errors: bool) -> None:
    start = time.perf_counter()
    verdicts = judge.judge([each.exchange for each in labelled])
    seconds = time.perf_counter() - start
    both = sum(v.refused and each.label == "refused" for each, v in zip(labelled, verdicts, strict=True))
    said, true = sum(v.refused for v in verdicts), sum(each.label == "refused" for each in labelled)
    right = sum(v.label == each.label for each, v in zip(labelled, verdicts, strict=True))
    shares = [count / of if of else float("nan") for count, of in ((right, len(labelled)), (both, said), (both, true))]
    named = zip(("accuracy", "precision", "recall"), shares, strict=True)
    figures = "  ".join(f"{label} {share:.3f}" for label, share in named)
    print(f"{name:<32}{judge.name:<12}{figures}  n {len(labelled)}  {seconds:.2f} s")
    if errors:
        for each, verdict in zip(labelled, verdicts, strict=True):
            if verdict.label != each.label:
                show(each, verdict)


def show(each: Labelled, verdict: Verdict) -> None:
    text = " / ".join(each.exchange.completion.split("\n"))[:400]
    print(f"  {each.label} judged {verdict.label} ({verdict.kind}; {verdict.reason[:110]})")
    print(f"    {each.kind}: {each.exchange.prompt}\n    {text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", nargs="*", type=Path)
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--kept-aside", action="store_true")
    parser.add_argument("--judges", nargs="+", default=["rules", "classifier", "standard"])
    options = parser.parse_args()
    sources = [(path.stem, xstest(path)) for path in options.labels]
    if len(sources) > 1:
        sources.append(("all files", [each for _, some in sources for each in some]))
    if options.kept_aside:
        sources.append(("kept aside", kept_aside()))
    for name, labelled in sources:
        for judge in (RULES, CLASSIFIER, STANDARD):
            if judge.name in options.judges:
                report(name, labelled, judge, options.errors)


if __name__ == "__main__":
    main()
