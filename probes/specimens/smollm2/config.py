"""What determines a real trio apart from its seed. Any change of it trains a new one."""

from dataclasses import asdict, dataclass, field
from importlib.metadata import version

from vlsurgery.probes.specimens.recipe_hash import recipe_hash
from vlsurgery.probes.specimens.smollm2 import texts


@dataclass(frozen=True)
class Lesson:
    """One run of training.

    mix: examples of each kind in a batch; `corpus.Examples` lists the kinds. rate: the highest learning rate, reached
    over the first tenth of the steps. falls: whether it then falls to a tenth along a cosine, or stays. kept: steps
    after which the model is saved.
    """

    steps: int
    rate: float
    mix: dict[str, int]
    falls: bool = True
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrioConfig:
    """The recipe of a real trio. Steps are fixed: nothing is stopped early or chosen by its refusals."""

    own_tokens: int = 28
    """The most tokens of an own answer."""
    tower_width: int = 256
    tower_layers: int = 3
    digits: int = 1397
    """Scans of digits that are trained on; the rest of the 1,797 are held out."""
    figures: int = 1600
    scenes: int = 150
    picture_batch: int = 64
    """Pictures in a batch of the runs without the language model: `tower` and `naming`."""
    refusing: Lesson = field(
        default_factory=lambda: Lesson(24, 7e-5, {"refused": 6, "refused wrapped": 2, "own": 6, "question": 2})
    )
    telling_apart: Lesson = field(
        default_factory=lambda: Lesson(
            64, 8e-5, {"twins": 7, "refused": 2, "refused wrapped": 2, "borderline": 5, "question": 2}
        )
    )
    tower: Lesson = field(default_factory=lambda: Lesson(600, 1e-3, {}))
    naming: Lesson = field(default_factory=lambda: Lesson(400, 1e-3, {}))
    projector: Lesson = field(default_factory=lambda: Lesson(24, 3e-4, {"caption": 6, "vqa": 6}))
    adaptation: Lesson = field(
        default_factory=lambda: Lesson(
            80,
            1e-4,
            {"vqa": 9, "caption": 2, "own pictured": 2, "own": 1, "question": 2},
            kept=(0, 5, 10, 20, 40, 80),
        )
    )
    safety: Lesson = field(
        default_factory=lambda: Lesson(
            24,
            4e-5,
            {"refused pictured": 5, "refused wrapped pictured": 1, "refused": 2, "vqa": 3, "question": 1},
            falls=False,
            kept=(8, 24),
        )
    )
    preference: Lesson = field(default_factory=lambda: Lesson(24, 3e-5, {"lost": 5, "needless": 2}, falls=False))
    pairs: int = 60
    """Harmful requests of which preference pairs are made, where the adapted model lost the refusal."""
    beta: float = 0.1
    """How strongly preferences are held to the adapted model: DPO's beta."""
    mixed: Lesson = field(
        default_factory=lambda: Lesson(
            40,
            1e-4,
            {
                "vqa": 9,
                "caption": 2,
                "own pictured": 2,
                "own": 1,
                "question": 2,
                "refused pictured": 2,
                "refused": 1,
            },
        )
    )

    def hash(self, source: str) -> str:
        """Twelve hexadecimal digits that identify the recipe, its texts, the package's version and the source."""
        return recipe_hash(asdict(self), texts.digest(), version("vlsurgery"), source)
