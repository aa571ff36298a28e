"""The built-in specimens, the miniature and the real trio: trained or taken from the cache, and what that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.cli.console import Console
from vlsurgery.cli.workflow.engine import StepOptions
from vlsurgery.cli.workflow.estimates import PROGRAM_BYTES, PlannedStep
from vlsurgery.cli.workflow.judge_source import DEFAULT_TOKENS
from vlsurgery.cli.workflow.steps import AUTO_GOALS

REAL_CHECKPOINTS = 11  # that a real trio keeps: its base, two on the way, six of adaptation, two of safety
REAL_TRAINING_BYTES = 5_000_000_000  # peak of the process
REAL_TOKENS = 64  # of a completion, at most: half of the default, which halves the time of an evaluation
DEMO_GOALS = ("diff", "probe", *AUTO_GOALS)


@dataclass(frozen=True)
class Trained:
    """A specimen on disk.

    roles: role -> directory. told: what limits everything that is measured on it. control: a fine-tune of the base on
    harmless text alone, where it was asked for and the specimen has one.
    """

    roles: dict[str, str]
    told: str
    control: Path | None = None


def default_seed(real: bool) -> int:
    """The miniature's pinned seed; of the real trio, for which none was chosen, the first."""
    from vlsurgery.probes.specimens.miniature import DEMO_SEED

    return 0 if real else DEMO_SEED


def train(real: bool, seed: int, console: Console, control: bool = False) -> Trained:
    """The specimen of a seed, from the cache or trained now. control: the control of claim C1 too.

    Raises CheckpointError where the specimen's source is nowhere to be had.
    """
    return _real(seed, console, control) if real else _miniature(seed, console)


def _miniature(seed: int, console: Console) -> Trained:
    from vlsurgery.figures.caveats import specimen_words
    from vlsurgery.probes.specimens.miniature import DEMO_SEED, build

    pinned = "pinned, and chosen because the demo holds on it" if seed == DEMO_SEED else "not the pinned one"
    console.say(f"training the specimen, or taking it from the cache; seed {seed} is {pinned}")
    found = build(seed, progress=console.progress)
    roles = {role: str(getattr(found, role)) for role in ("base", "adapted", "safety")}
    return Trained(roles, specimen_words({"chosen": seed == DEMO_SEED, "story": found.story}))


def _real(seed: int, console: Console, control: bool) -> Trained:
    from vlsurgery.probes.specimens.smollm2 import build, build_control, mark

    console.say(f"training the real trio of seed {seed} (a quarter of an hour), or taking it from the cache")
    found = build(seed, progress=console.progress)
    roles = {role: str(getattr(found, role)) for role in ("base", "adapted", "safety")}
    tuned = build_control(found, console.progress) if control else None
    return Trained(roles, mark(found).told, tuned)


def options_for(real: bool) -> StepOptions:
    """The options that a specimen's case is made with; for the miniature the defaults."""
    return StepOptions(tokens=REAL_TOKENS) if real else StepOptions()


def plan_specimen(
    real: bool, seed: int, goals: Sequence[str], before: str = "", control: bool = False
) -> list[PlannedStep]:
    """Training, and every goal at the specimen's size, whatever is cached or done already.

    before: put before names. control: plan its training too, where the specimen has one.
    """
    from vlsurgery.cli.workflow.sizes import specimen_sizes

    sizes = specimen_sizes(real, seed, REAL_TOKENS if real else DEFAULT_TOKENS)
    stored = sizes.adapted
    made = {"train": REAL_CHECKPOINTS if real else 3} | ({"control": 1} if real and control else {})
    memory = REAL_TRAINING_BYTES if real else PROGRAM_BYTES
    training = [
        PlannedStep(before + name, "unless it is cached", ("the cache directory",), 0, count * stored, memory)
        for name, count in made.items()
    ]
    steps = [sizes.planned(goal, "unless the case has it", name=before + goal) for goal in goals]
    return [*training, *steps]
