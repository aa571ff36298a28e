"""Whether an evaluated case's directories say the same in plain transformers: completions and verdicts, by request.

Run it as `python tests/benchmarks/second_framework.py CASE [--prompts 40]`. Each directory of the case, its merge too,
is opened by transformers alone and asked some of the prompts that `vlsurgery evaluate` asked it, one at a time, without
padding: the framework's own chat template, and a greedy loop that is written here. The case's judge judges what is
said. Printed are how many completions and verdicts are the same, and refusals by both; exit code 1 where a verdict
differs. In bfloat16 a batch rounds otherwise than a prompt alone, so that words may differ there.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Job
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.prompts import Prompt, rgb

Said = dict[tuple[str, str], dict[str, Any]]  # role and prompt id -> a line of completions.jsonl


@dataclass(frozen=True)
class Plain:
    """A directory in transformers. words: its tokenizer, inside of `reader` where it sees. end: tokens that end."""

    model: Any
    reader: Any
    words: Any
    end: tuple[int, ...]

    @classmethod
    def opened(cls, directory: Path, dtype: torch.dtype) -> "Plain":
        sees = hasattr(AutoConfig.from_pretrained(directory), "vision_config")
        reader = (AutoProcessor if sees else AutoTokenizer).from_pretrained(directory)
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        model = kind.from_pretrained(directory, dtype=dtype).eval()
        words = reader.tokenizer if sees else reader
        end = model.generation_config.eos_token_id or words.eos_token_id
        return cls(model, reader, words, tuple(end) if isinstance(end, list) else (end,))

    def said(self, prompt: Prompt, tokens: int) -> tuple[str, bool]:
        """A greedy completion of at most so many tokens, and whether it was cut off there."""
        ids: list[int] = []
        inputs = dict(self._asked(prompt))
        length = inputs["input_ids"].shape[1]
        with torch.no_grad():
            while len(ids) < tokens and not (ids and ids[-1] in self.end):
                out = self.model(**inputs, use_cache=True)
                ids.append(int(out.logits[0, -1].argmax()))
                seen = torch.ones(1, length + len(ids), dtype=torch.long)
                inputs = {"input_ids": torch.tensor([ids[-1:]]), "attention_mask": seen}
                inputs["past_key_values"] = out.past_key_values
        return self.words.decode(ids, skip_special_tokens=True).strip(), ids[-1] not in self.end

    def _asked(self, prompt: Prompt) -> Any:
        """One user's turn as the framework's own template renders and reads it."""
        content: Any = prompt.text
        if self.reader is not self.words:
            content = [{"type": "text", "text": prompt.text}]
            if prompt.image is not None:
                content.insert(0, {"type": "image", "image": rgb(prompt.image)})
        return self.reader.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )


def chosen(prompts: Sequence[Prompt], role: str, said: Said, count: int) -> list[Prompt]:
    """So many of the prompts that a role was asked: of each set and picture in turn."""
    cells: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in prompts:
        if (role, prompt.id) in said:
            cells.setdefault((prompt.set, prompt.modality), []).append(prompt)
    longest = max(map(len, cells.values()), default=0)
    turns = [members[at] for at in range(longest) for members in cells.values() if at < len(members)]
    return turns[:count]


def directories(job: Job) -> Iterator[tuple[str, Path]]:
    for role, checkpoint in job.checkpoints.items():
        yield role, checkpoint.path
    if job.merged is not None:
        yield "merged", job.merged.path


def compare(job: Job, count: int, dtype: torch.dtype) -> bool:
    """Print a line for each directory; whether every verdict is the same."""
    lines = job.case.path("completions.jsonl").read_text().splitlines()
    said: Said = {(each["role"], each["id"]): each for each in map(json.loads, lines)}
    judge, tokens, same = job.judge_source.judges[0], job.judge_source.tokens, True
    print(f"{'':10}{'prompts':>8}{'same words':>12}{'same verdict':>14}{'refused by evaluate':>21}{'in plain':>10}")
    for role, directory in directories(job):
        plain, asked = Plain.opened(directory, dtype), chosen(job.prompts, role, said, count)
        answers = [plain.said(prompt, tokens) for prompt in asked]
        verdicts = judge.judge([exchange(p, *answer) for p, answer in zip(asked, answers, strict=True)])
        theirs = [said[role, prompt.id] for prompt in asked]
        labels = [each["verdicts"][judge.name]["label"] for each in theirs]
        words = sum(each["text"] == text for each, (text, _) in zip(theirs, answers, strict=True))
        differing = [at for at, verdict in enumerate(verdicts) if verdict.label != labels[at]]
        refused = sum(label == "refused" for label in labels), sum(verdict.refused for verdict in verdicts)
        agreed = len(asked) - len(differing)
        print(f"{role:10}{len(asked):8}{words:12}{agreed:14}{refused[0]:21}{refused[1]:10}", flush=True)
        for at in differing:
            print(f"  {asked[at].id}: {labels[at]} {theirs[at]['text']!r}, in plain {verdicts[at].label} {answers[at]}")
        same = same and bool(asked) and not differing
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("--prompts", type=int, default=40, help="of each directory")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="as the evaluation had it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    same = compare(Job(Case.open(given.case)), given.prompts, getattr(torch, given.dtype))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
