"""What the base says to requests without pictures: its refusals are what a run is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS, Completion, complete
from vlsurgery.probes.evaluation.judges import STANDARD, Judge, checked
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import Verdict
from vlsurgery.probes.targets import token_ids, without_picture
from vlsurgery.probes.trajectory.openings import RefusalOpenings, refusal_openings
from vlsurgery.surgery.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class Answering:
    """How completions are made and judged. judge: tells refusals from answers. tokens: of a completion, at most."""

    judge: Judge = STANDARD
    tokens: int = DEFAULT_TOKENS
    progress: Progress = no_progress

    def verdicts(self, chat: ChatModel, prompts: Sequence[Prompt], name: str) -> tuple[list[Completion], list[Verdict]]:
        """What a model says to prompts, and the judge's verdicts. name: of the model, for the bar."""
        said = complete(chat, prompts, f"asking {name}", self.progress, self.tokens)
        return said, self.judged(prompts, said)

    def judged(self, prompts: Sequence[Prompt], said: Sequence[Completion]) -> list[Verdict]:
        """The judge's verdicts on completions."""
        asked = [exchange(prompt, each.text, not each.finished) for prompt, each in zip(prompts, said, strict=True)]
        return checked(self.judge, asked)


@dataclass(frozen=True)
class BaseCompletions:
    """The base's completions of requests without pictures, with verdicts."""

    prompts: Sequence[Prompt]
    said: Sequence[Completion]
    verdicts: Sequence[Verdict]

    def openings(self, chat: ChatModel) -> RefusalOpenings:
        """How the base refuses harmful requests, in the tokens of `chat`, against whatever it answers.

        Raises SurgeryError where its refusals have no opening of their own.
        """
        refusals, answers = [], []
        for prompt, each, found in zip(self.prompts, self.said, self.verdicts, strict=True):
            ids = token_ids(chat, each.text, each.ids).tolist()
            if found.refused and prompt.set in HARMFUL_SETS:
                refusals.append(ids)
            elif found.label == "complied":
                answers.append(ids)
        return refusal_openings(refusals, answers)

    def verdict(self, prompt: Prompt) -> Verdict:
        """The verdict on the request of a prompt, asked without its picture."""
        return next(
            found
            for asked, found in zip(self.prompts, self.verdicts, strict=True)
            if (asked.set, asked.text) == (prompt.set, prompt.text)
        )


def requests_alone(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The requests of prompts, each once and without its picture."""
    return list({(prompt.set, prompt.text): without_picture(prompt) for prompt in prompts}.values())


def base_completions(base: ChatModel, prompts: Sequence[Prompt], how: Answering) -> BaseCompletions:
    """Have the base answer the requests of prompts, each once and without its picture."""
    texts = requests_alone(prompts)
    return BaseCompletions(texts, *how.verdicts(base, texts, "base"))
