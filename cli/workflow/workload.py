"""What each step asks of models, counted as `probes` runs it; tests hold the counts against the models' own.

What only a run can tell (which refusals were lost, how many points a path takes) is an `Outcome` and an `Expected`.
Trials of one or two batches (of padding, of passes that begin at a block) are not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, comb

from vlsurgery.cli.workflow.work import Passes, Work
from vlsurgery.probes.added_direction import MAX_TRIED, RANDOMS
from vlsurgery.probes.attribution_passes import MAX_KEPT, MAX_KEPT_TOKENS, MAX_LOST, MIN_LOST
from vlsurgery.probes.candidates import COST_SHARE, MAX_PROMPTS as MAX_SIDE, RANDOM_DIRECTIONS
from vlsurgery.probes.contrasts import contrast, is_harmful
from vlsurgery.probes.controls import MAX_CONTROLS
from vlsurgery.probes.directions.choice import LATE_SHARE
from vlsurgery.probes.evaluation.divergence import MAX_KL_PROMPTS, MAX_KL_TOKENS
from vlsurgery.probes.evaluation.dividing import shard_size
from vlsurgery.probes.fitting import MAX_KEPT as FIT_KEPT, MAX_REFUSED as FIT_REFUSED, NUM_PARTS, STEPS
from vlsurgery.probes.layer_gains import MAX_PROMPTS
from vlsurgery.probes.layer_patching import MAX_LAYERS as MAX_PATCHED, TOKENS
from vlsurgery.probes.layer_readings import READ_MODALITIES, SHOWN_SETS, shown_prompts
from vlsurgery.probes.lens import evenly_from_last
from vlsurgery.probes.loss_teller import MAX_CHOSEN_ON
from vlsurgery.probes.objective_scorer import JUDGED_SET, MAX_FIT, MAX_SELECT, MaxPrompts
from vlsurgery.probes.policies import Policy
from vlsurgery.probes.probing.tasks import ANSWER_TOKENS, PICTURED
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import TargetsResult
from vlsurgery.probes.scoring import SCORED_TOGETHER
from vlsurgery.probes.starting_points import RAY
from vlsurgery.probes.targets import (
    OPENING_TOKENS,
    WORKING_MODALITIES,
    evenly_spaced,
    without_picture,
    working_prompts,
)

POSITIONS = 6  # of which the base's directions are candidates: most templates put about five tokens behind the text


@dataclass(frozen=True)
class RoleShape:
    """What of a checkpoint changes which prompts it is asked. sees: whether it takes pictures. vocabulary: of its
    head."""

    sees: bool
    vocabulary: int


@dataclass(frozen=True)
class Outcome:
    """Split -> its working prompts by what models said of them.

    refuse: harmful ones that the base refuses; lost: of these, those that the adapted model answers. keep: others that
    the adapted model answers.
    """

    refuse: Mapping[str, Sequence[Prompt]]
    lost: Mapping[str, Sequence[Prompt]]
    keep: Mapping[str, Sequence[Prompt]]

    @classmethod
    def at_most(cls, prompts: Sequence[Prompt], sees: bool) -> "Outcome":
        """Where the base refuses everything harmful and the adapted model, which may see, answers everything."""
        work = [p for p in working_prompts(prompts) if sees or p.modality == "text"]
        harmful = _by_split([p for p in work if p.set in HARMFUL_SETS])
        return cls(harmful, harmful, _by_split([p for p in work if p.set not in HARMFUL_SETS]))

    @classmethod
    def of(cls, prompts: Sequence[Prompt], targets: TargetsResult) -> "Outcome":
        """As the models of a probed case answered."""
        verdicts = {(row.role, row.prompt): row.verdict for row in targets.records}
        work = working_prompts(prompts)
        refuse = [p for p in work if verdicts.get(("base", p.id)) == "refused" and ("adapted", p.id) in verdicts]
        answered = [p for p in work if verdicts.get(("adapted", p.id)) == "complied"]
        kept = {p.id for p in answered}
        lost = [p for p in refuse if p.id in kept]
        return cls(_by_split(refuse), _by_split(lost), _by_split([p for p in answered if p.set not in HARMFUL_SETS]))


def _by_split(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    return {split: [p for p in prompts if p.split == split] for split in ("fit", "select")}


@dataclass(frozen=True)
class Expected:
    """What a run tells only when it is done.

    path: points along the path at which gradients are taken. merges: that one search measures. linearisations, steps:
    of the linearised policy, and the merges that it measures: its starts too, and those without one block, which are
    ten or none. answer: mean tokens of a completion.
    """

    path: int = 7
    merges: int = 36
    linearisations: float = 2.5
    steps: int = 8
    answer: float = 64.0

    @classmethod
    def of(cls, answer: float, sources: int) -> "Expected":
        """With completions of so many tokens, and merges toward so many sources."""
        coarse, nearby = comb(sources + 4, sources), 2 * sources + 4 * comb(sources, 2)
        return cls(answer=answer, merges=coarse + round(2.6 * nearby))  # refined in two or three rounds


@dataclass(frozen=True)
class Workload:
    """What a case's steps are counted from.

    roles: its checkpoints. layers, blocks: of the adapted model's text. picture_tokens: of a picture within a prompt.
    tokens: of a completion of an evaluation, at most. frontier: merges that a choice measures beside, such as those of
    a frontier. merged: whether an evaluation asks the merge and the best uniform one too. free: whether it is one of
    models without a case.
    """

    prompts: Sequence[Prompt]
    roles: Mapping[str, RoleShape]
    layers: int
    blocks: int
    picture_tokens: int
    outcome: Outcome
    expected: Expected = field(default_factory=Expected)
    tokens: int = 128
    policy: Policy = "best"
    frontier: int = 0
    merged: bool = False
    free: bool = False

    def of(self, step: str) -> Work:
        """What a step asks of models; nothing where it runs none."""
        parts = {
            "probe": self._probe,
            "coefficients": self._coefficients,
            "evaluate": self._evaluate,
            "layers": self._single_layers,
        }
        return parts[step]() if step in parts else Work()

    def asked(self, step: str) -> int:
        """How many different prompts a step asks, whichever models it asks them of."""
        parts = {
            "probe": lambda: [prompt for role in self.roles for prompt in self._probed(role)],
            "coefficients": self._fitted,
            "evaluate": lambda: [prompt for role in self._subjects() for prompt in self._reported(role)],
            "layers": self._lost_on_report,
        }
        return len({prompt.id for prompt in parts[step]()}) if step in parts else 0

    @cached_property
    def _pass(self) -> Passes:
        return Passes(self.picture_tokens, self.expected.answer)

    def _asked(self, role: str, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that a role can be asked."""
        return [p for p in prompts if self.roles[role].sees or p.modality == "text"]

    def _probe(self) -> Work:
        total = Work()
        for role in self.roles:
            total += self._pass.written(self._answered(role), ANSWER_TOKENS) + self._pass.loaded(self._probed(role))
        for role in (*self.roles, "adapted"):  # the graft sees what the adapted model does
            total += self._directions(role) + self._layer_readings(role)
        total += self._pass.captured(contrast(self.prompts, "select", "text")) + Work(moved=2)
        total += self._candidates() + self._patching()
        return total + (self._attribution() if len(self.outcome.lost["fit"]) >= MIN_LOST else Work())

    def _probed(self, role: str) -> list[Prompt]:
        """The prompts that a role is asked by a probe."""
        return [*self._answered(role), *self._contrasts(role), *self._read(role)]

    def _answered(self, role: str) -> list[Prompt]:
        """Those that it answers in a probe: the base harmful ones, without their pictures where it does not see."""
        work = working_prompts(self.prompts)
        if role != "base":
            return self._asked(role, work) if role == "adapted" else []
        harmful = [p for p in work if p.set in HARMFUL_SETS]
        return harmful if self.roles[role].sees else [without_picture(p) for p in harmful]

    def _candidates(self) -> Work:
        """Ablating and adding the base's directions: a share of scoring all of them, then the effect of one."""
        scored, shown = ([self._side(split, harmful) for harmful in (True, False)] for split in ("select", "report"))
        once = self._pass.forward(scored[0]) + self._pass.forward(scored[1]).times(2)
        effect = self._pass.forward([*shown[0], *shown[1]]).times(2 + RANDOM_DIRECTIONS)
        return once.times(COST_SHARE * POSITIONS * self.layers) + effect

    def _side(self, split: str, harmful: bool) -> list[Prompt]:
        """The prompts of one side that directions are scored on."""
        asked = [prompt for prompt in contrast(self.prompts, split, "text") if is_harmful(prompt) == harmful]
        return evenly_spaced(asked, MAX_SIDE)

    def _directions(self, role: str) -> Work:
        """What directions are made of, and shown on."""
        found = Work()
        for modality in ("text", *PICTURED):
            for split in ("fit", "report"):
                asked = [p for p in self._contrasts(role) if (p.modality, p.split) == (modality, split)]
                found += self._pass.captured(asked)
        return found

    def _contrasts(self, role: str) -> list[Prompt]:
        """The prompts of a role's directions."""
        found = []
        for modality in ("text", *PICTURED) if self.roles[role].sees else ("text",):
            sides = [contrast(self.prompts, split, modality) for split in ("fit", "report")]
            if all(_has_both(side) for side in sides):
                found += [*sides[0], *sides[1]]
        return found

    def _read(self, role: str) -> list[Prompt]:
        """The prompts on which a role's layers are read."""
        cells = [(set_, modality) for set_ in SHOWN_SETS for modality in READ_MODALITIES]
        return self._asked(role, [p for cell in cells for p in shown_prompts(self.prompts, *cell)])

    def _layer_readings(self, role: str) -> Work:
        """A pass of each, and a lens behind every layer."""
        read = self._read(role)
        return self._pass.captured(read) + Work(heads=self.layers * len(read))

    def _patching(self) -> Work:
        """The graft's states in the adapted model, and the base's direction added to it, in text and with a picture."""
        if not any(self.outcome.refuse.values()):
            return Work()
        layers = len(evenly_from_last(self.layers, MAX_PATCHED))
        tried = min(MAX_TRIED, int(self.layers * (1.0 - LATE_SHARE)))
        harmful = [p for p in self._asked("adapted", self.prompts) if p.set == "harmful"]
        pictured = next((each for each in PICTURED if any(p.modality == each for p in harmful)), None)
        total = Work()
        for modality, kinds in (("text", 1), (pictured, len(TOKENS))):
            shown = shown_prompts(harmful, "harmful", modality or "")
            chosen_on = [p for p in harmful if (p.split, p.modality) == ("select", modality)]
            once = self._pass.forward(shown)
            total += once.times(2 + kinds * layers + 1 + RANDOMS) + Work(moved=2 if shown else 0)
            total += self._pass.forward(evenly_spaced(chosen_on, MAX_CHOSEN_ON)).times(tried if shown else 0)
        return total

    def _attribution(self) -> Work:
        lost = evenly_spaced(self.outcome.lost["fit"], MAX_LOST)
        kept = evenly_spaced(self.outcome.keep["fit"], MAX_KEPT)
        refuse = evenly_spaced(self.outcome.refuse["fit"], MAX_LOST)
        odds, answers = self._pass.forward(lost), self._pass.forward(kept, min(MAX_KEPT_TOKENS, self.expected.answer))
        controls = evenly_spaced(self.outcome.keep["fit"], MAX_CONTROLS)
        path = (self._pass.gradient([*lost, *controls]) + Work(moved=1)).times(self.expected.path)
        greedy = self._pass.forward(refuse, OPENING_TOKENS)
        total = odds.times(3) + path + answers + greedy.times(2) + Work(moved=6)
        return total + self._transplants(odds + answers, self.blocks)

    def _transplants(self, once: Work, blocks: int) -> Work:
        """A pass with each block alone moved; those of layers begin at the layer, on what was kept of those below."""
        inside = min(blocks, blocks // self.layers * self.layers)
        begun = inside * (self.layers + 1) / (2 * self.layers)
        shares = begun + (blocks - inside) + (self.layers - 1) / self.layers
        found = once.times(shares)
        return replace(found, heads=once.heads * blocks, calls=once.calls * (blocks + self.layers)) + Work(moved=2)

    def _scored(self, split: str, most: MaxPrompts) -> list[tuple[Sequence[Prompt], int]]:
        """Prompts of a scorer, with how many tokens of each the head reads."""
        keep = self.outcome.keep[split]
        answer = evenly_spaced([p for p in keep if p.set != JUDGED_SET], most.answer)
        kept = evenly_spaced([p for p in keep if p.set == JUDGED_SET], most.keep)
        return [([*evenly_spaced(self.outcome.refuse[split], most.refuse), *answer], 1), (kept, OPENING_TOKENS)]

    def _fitted(self) -> list[Prompt]:
        """The prompts that coefficients are fitted and chosen on."""
        most = {"fit": MAX_FIT, "select": MAX_SELECT}
        return [prompt for split in most for part in self._scored(split, most[split]) for prompt in part[0]]

    def _coefficients(self) -> Work:
        measured = self._measured()
        searches = 2 if self.policy in ("attribution", "weights") else 1
        total = self._pass.loaded(self._fitted()) + measured.times(1 + searches * self.expected.merges)
        if self.policy in ("best", "linearised"):
            fit = self._scored("fit", MAX_FIT)
            total += sum((self._pass.forward(*part) for part in fit), Work())
            total += self._gradients()
            total += measured.times(self.expected.steps + self.frontier)
        if self.policy == "fit":
            once = [
                *evenly_spaced(self.outcome.refuse["fit"], FIT_REFUSED),
                *evenly_spaced(self.outcome.keep["fit"], FIT_KEPT),
            ]
            step = self._pass.gradient(once, self.expected.answer).times(1 / NUM_PARTS) + Work(moved=1)
            total += self._pass.forward(once, self.expected.answer) + step.times(STEPS) + measured
        return total

    def divided_probe(self, workers: int) -> tuple[int, Work]:
        """How many tasks so many workers have of a probe, about, and what all of them take."""
        shards = [
            ceil(count / shard_size(count, workers)) for count in map(len, map(self._answered, self.roles)) if count
        ]
        looks = (len(self.roles) + 1) * (1 + len(PICTURED)) + len(self.roles) * (len(READ_MODALITIES) + 1)
        tasks = sum(shards) + looks + 3 + 2 * workers
        if len(self.outcome.lost["fit"]) >= MIN_LOST:
            batches = ceil(len(evenly_spaced(self.outcome.lost["fit"], MAX_LOST)) / SCORED_TOGETHER) + 1
            tasks += self.expected.path * batches + min(workers, self.blocks) + 2
        return tasks, self._probe()

    def divided_choice(self) -> tuple[int, Work]:
        """How many tasks workers have of a choice, about, and what all of them take: merges that don't wait for one
        another, and batches of gradients."""
        searches = 2 if self.policy in ("attribution", "weights") else 1
        count, work = searches * self.expected.merges, Work()
        if self.policy in ("best", "linearised"):
            work = self._gradients()
            count += len(RAY) + self.frontier
        return count + round(work.backward), work + self._measured().times(count)

    def _gradients(self) -> Work:
        """Those of the `fit` prompts, as often as they are taken."""
        once = sum((self._pass.gradient(*part) for part in self._scored("fit", MAX_FIT)), Work(moved=1))
        return once.times(self.expected.linearisations)

    def _measured(self) -> Work:
        """One merge on `select` prompts."""
        return sum((self._pass.forward(*part) for part in self._scored("select", MAX_SELECT)), Work(moved=1))

    def _evaluate(self) -> Work:
        total = Work()
        for like in self._subjects():
            asked = self._reported(like)
            total += self._pass.loaded(asked) + self._pass.written(asked, self.tokens)
            if self._is_compared(like):
                total += self._divergence(asked)
        return total + Work(moved=(not self.free) + self.merged)

    def _reported(self, role: str) -> list[Prompt]:
        return self._asked(role, [p for p in self.prompts if p.split == "report"])

    def _subjects(self) -> list[str]:
        """The role that each subject reads as: the graft, and merges, read as the adapted model does."""
        return [*self.roles, *([] if self.free else ["adapted"]), *(["adapted"] * 2 if self.merged else [])]

    def _is_compared(self, role: str) -> bool:
        """Whether a subject's answers have a KL from the adapted model's."""
        return "adapted" in self.roles and self.roles[role].vocabulary == self.roles["adapted"].vocabulary

    def _divergence(self, asked: Sequence[Prompt]) -> Work:
        cells: dict[tuple[str, str], list[Prompt]] = {}
        for prompt in self._asked("adapted", asked):
            if prompt.set not in HARMFUL_SETS:
                cells.setdefault((prompt.set, prompt.modality), []).append(prompt)
        read = min(MAX_KL_TOKENS, self.expected.answer)
        found = (self._pass.forward(some[:MAX_KL_PROMPTS], read) for some in cells.values())
        return sum(found, Work())

    def _single_layers(self) -> Work:
        lost = self._lost_on_report()
        odds = self._pass.forward(lost)
        return self._pass.loaded(lost) + odds + self._transplants(odds, self.layers)

    def _lost_on_report(self) -> list[Prompt]:
        """The harmful prompts of `report` that layers are moved for, were the refusal of each lost."""
        harmful = [p for p in self._reported("adapted") if p.set == "harmful" and p.modality in WORKING_MODALITIES]
        return evenly_spaced(harmful, MAX_PROMPTS)


def _has_both(prompts: Sequence[Prompt]) -> bool:
    """Whether a direction can be made or shown: two requests on each side."""
    return all(len({p.request for p in prompts if (p.set == "harmful") == side}) > 1 for side in (True, False))
