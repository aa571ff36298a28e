"""Completions of an evaluation by model and prompt, kept in a file so that one that was cut short goes on. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.prompts import Prompt, prompts_digest
from vlsurgery.probes.results import CompletionRecord


@dataclass(frozen=True)
class Said:
    """What a model said to one prompt.

    tokens: how many it wrote. cut: whether it ended at the limit of tokens. filtered: whether a server's own filter
    ended it.
    """

    text: str
    tokens: int
    cut: bool
    filtered: bool = False


class CompletionStore:
    """Every completion so far; those of a file are taken where the same model was asked the same.

    digest: of what is asked, see `asked_digest`. tokens: of a completion, at most. file: None keeps them in memory.
    """

    def __init__(self, digest: str, tokens: int, file: CompletionFile | None = None) -> None:
        self.digest = digest
        self.tokens = tokens
        self.file = file
        self._kept: dict[tuple[str, str], CompletionRecord] = {}
        if file is not None:
            kept = [record for record in file.read() if self._is_usable(record)]
            self._kept = {(record.model, record.id): record for record in kept}
            file.replace(kept)

    def missing(self, model: str, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that a model has not answered yet. model: its identity."""
        return [prompt for prompt in prompts if (model, prompt.id) not in self._kept]

    def of(self, role: str, model: str, prompts: Sequence[Prompt]) -> list[CompletionRecord]:
        """A model's completions of these prompts, in their order, under its role of now."""
        found = {prompt.id: self._kept[model, prompt.id] for prompt in prompts}
        return [record.model_copy(update={"role": role}) for record in found.values()]

    def add(self, role: str, model: str, prompts: Sequence[Prompt], said: Sequence[Said]) -> None:
        """Keep what a model said; it is on the disk on return. Raises TargetError where that can't be done."""
        records = [
            CompletionRecord(
                role=role,
                model=model,
                id=prompt.id,
                request=prompt.request,
                set=prompt.set,
                modality=prompt.modality,
                prompt=prompt.text,
                text=each.text,
                answer=prompt.answer,
                topic=prompt.topic,
                tokens=each.tokens,
                cut=each.cut,
                verdicts={},
                prompts_digest=self.digest,
            )
            for prompt, each in zip(prompts, said, strict=True)
        ]
        self._kept.update({(record.model, record.id): record for record in records})
        if self.file is not None:
            self.file.append(records)

    def _is_usable(self, record: CompletionRecord) -> bool:
        """Whether a kept completion is what would be written now."""
        fits = record.tokens == self.tokens if record.cut else record.tokens <= self.tokens
        return fits and record.prompts_digest == self.digest


def asked_digest(prompts: Sequence[Prompt], thinking: bool | None = None) -> str:
    """What identifies the prompts, and what templates are told of thoughts where they are told anything."""
    digest = prompts_digest(prompts)
    return digest if thinking is None else f"{digest} thinking {'on' if thinking else 'off'}"
