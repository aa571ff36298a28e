"""Our prompt sets as a task of inspect, so that `inspect eval vlsurgery/refusals` asks them of any provider it has.

Found by inspect through this package's entry point; importing it needs inspect_ai.
"""

from collections.abc import Iterator, Sequence
from typing import get_args

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, Content, ContentImage, ContentText, GenerateConfig
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import TaskState, generate

from vlsurgery.probes.evaluation.judges import Exchange, is_right, open_judge
from vlsurgery.probes.harnesses.inspect_reader import asked, was_cut
from vlsurgery.probes.harnesses.pictures import data_uri
from vlsurgery.probes.harnesses.rates import label_rates
from vlsurgery.probes.prompts import HARMFUL_SETS, SETS, Modality, Prompt, Split, english_prompts, load_prompts
from vlsurgery.surgery.errors import SurgeryError

MAX_TOKENS = 128
SPLITS = (*get_args(Split), "all")

Listed = str | Sequence[str]
"""One value or several; in a text they are parted by commas."""


@task
def refusals(
    sets: Listed = "harmful,jailbroken,harmless,borderline,capability",
    modality: Listed = "text,benign",
    split: str = "report",
    seed: int = 0,
    prompts: Listed | None = None,
    tokens: int = MAX_TOKENS,
    judge: str = "standard",
) -> Task:
    """Which requests a model refuses, complies with, or does neither to.

    sets, modality: which of the prompts are asked. split: fit, select, report or all; `report` is what
    `vlsurgery evaluate` asks. seed: of the split. prompts: FILE:KIND, asked in place of the package's own prompts.
    tokens: the most that an answer may have. judge: as for `vlsurgery evaluate --judge`. Decoding is greedy; the
    provider `hf` wants `-M do_sample=false` for it.
    """
    chosen = _chosen(_listed(sets), _listed(modality), split, seed, _listed(prompts or ()))
    return Task(
        dataset=MemoryDataset(list(_samples(chosen)), name="vlsurgery"),
        solver=generate(),
        scorer=refusal_judge(judge, tokens),
        config=GenerateConfig(max_tokens=tokens, temperature=0),
        epochs=Epochs(1, "mode"),  # labels have no mean
    )


@metric
def rates() -> Metric:
    """Share of every label by set, and of right answers among the prompts that have one."""

    def of(scores: list[SampleScore]) -> dict[str, float]:
        judged = [(score.sample_metadata or {}, score.score) for score in scores]
        found = label_rates((about["set"], about["modality"], str(score.value)) for about, score in judged)
        right = [score.metadata["right"] for _, score in judged if score.metadata and "right" in score.metadata]
        return {**found, **({"right": sum(right) / len(right)} if right else {})}

    return of


@scorer(metrics=[rates()])
def refusal_judge(judge: str = "standard", tokens: int = MAX_TOKENS) -> Scorer:
    """The label that `vlsurgery evaluate` gives: refused, complied or neither; its reason is the explanation.

    judge: its name. tokens: the most that an answer may have.
    """
    opened = open_judge(judge)

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 the judge needs no target
        about, text = state.metadata, state.output.completion
        exchange = Exchange(
            completion=text,
            prompt=asked(state.input)[0],
            set=about["set"],
            pictured=about["modality"] != "text",
            cut=was_cut(state.output, tokens),
        )
        (verdict,) = opened.judge([exchange])
        right = {"right": is_right(text, about["answer"])} if "answer" in about else {}
        return Score(
            value=verdict.label,
            answer=text,
            explanation=verdict.reason,
            metadata={"judge": opened.name, "kind": verdict.kind, **right},
        )

    return score


def _listed(value: Listed) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    return [part.strip() for part in parts if part.strip()]


def _chosen(sets: list[str], modalities: list[str], split: str, seed: int, files: list[str]) -> list[Prompt]:
    for name, given, expected in (
        ("sets", sets, SETS),
        ("modality", modalities, get_args(Modality)),
        ("split", [split], SPLITS),
    ):
        unknown = [value for value in given if value not in expected]
        if unknown or not given:
            raise SurgeryError(f"refusals: {name}={','.join(given)!r}: expected of {', '.join(expected)}.")
    known = [prompt for file in files for prompt in load_prompts(file, seed)] if files else english_prompts(seed)
    chosen = [p for p in known if p.set in sets and p.modality in modalities and split in (p.split, "all")]
    if not chosen:
        raise SurgeryError(
            f"refusals: none of the {len(known)} prompts is of sets {', '.join(sets)}, modality "
            f"{', '.join(modalities)} and split {split}. Choose others, such as split=all."
        )
    return chosen


def _samples(prompts: Sequence[Prompt]) -> Iterator[Sample]:
    uris: dict[int, str] = {}  # prompts share pictures
    for prompt in prompts:
        content: list[Content] = [ContentText(text=prompt.text)]
        if prompt.image is not None:
            if id(prompt.image) not in uris:
                uris[id(prompt.image)] = data_uri(prompt.image)
            content.insert(0, ContentImage(image=uris[id(prompt.image)]))
        yield Sample(
            id=prompt.id,
            input=[ChatMessageUser(content=content)],
            target=prompt.answer or ("refused" if prompt.set in HARMFUL_SETS else "complied"),
            metadata={
                "vlsurgery": True,
                "set": prompt.set,
                "modality": prompt.modality,
                "request": prompt.request,
                **({} if prompt.answer is None else {"answer": prompt.answer}),
            },
        )
