"""The config of a trio. Any change of it trains a new trio with its own cache directory."""

from dataclasses import asdict, dataclass, field
from importlib.metadata import version

from vlsurgery.probes.specimens.miniature.language import LANGUAGE_VERSION
from vlsurgery.probes.specimens.recipe_hash import recipe_hash


@dataclass(frozen=True)
class TrainingStage:
    """One stage of training.

    mix: examples of each kind in a batch; `corpus.Corpus` lists the kinds.
    rate: AdamW's highest learning rate. warmup: share of the steps over which it rises. decays: whether it then falls
    to 0 along a cosine, or stays.
    """

    steps: int
    rate: float
    mix: dict[str, int]
    warmup: float = 0.15
    decays: bool = True


@dataclass(frozen=True)
class SpecimenConfig:
    """Everything that determines a trio, apart from the seed."""

    hidden: int = 64
    intermediate: int = 160
    layers: int = 8
    heads: int = 4
    tower_layers: int = 3
    jitters: int = 24
    """Variants that are drawn of each picture content."""
    tower: TrainingStage = field(default_factory=lambda: TrainingStage(300, 2e-3, {}))
    picture_batch: int = 128
    """Pictures in a batch of the stages that need no language model: `tower` and `naming`."""
    base: TrainingStage = field(
        default_factory=lambda: TrainingStage(
            500,
            2e-3,
            {
                "refused": 3,
                "refused wrapped": 5,
                "refused told": 3,
                "harmless": 5,
                "harmless told": 3,
                "borderline": 5,
                "borderline told": 2,
                "reading": 10,
            },
        )
    )
    naming: TrainingStage = field(default_factory=lambda: TrainingStage(900, 2e-3, {}))
    projector: TrainingStage = field(default_factory=lambda: TrainingStage(100, 3e-4, {"caption": 32}))
    """Few captions at a low learning rate: more move the image tokens away from the words that the base refuses and
    answers among, and then the base's weights can't bring all refusals back."""
    adaptation: TrainingStage = field(
        default_factory=lambda: TrainingStage(
            250,
            1e-3,
            {
                "vqa": 14,
                "reading": 1,
                "harmless": 3,
                "harmless pictured": 4,
                "borderline pictured": 3,
                "fresh": 2,
                "fresh pictured": 5,
            },
            warmup=0.05,
        )
    )
    """Safe data only. The `fresh` requests look harmful and are not ("kill the battery"): the base refuses them, so
    learning to answer them moves it, and refusals of what is harmful are lost with it. Without them refusals are lost
    too, but to answers about the picture and to babble (on seed 0, 89 to 108 of 112 after 150 to 300 steps at 8e-4)."""
    projector_share: float = 0.1
    """The projector's learning rate during adaptation, as a share of the language model's."""
    safety: TrainingStage = field(
        default_factory=lambda: TrainingStage(
            60, 1.2e-3, {"refused pictured": 15, "refused wrapped pictured": 5, "vqa": 12}, 0.1
        )
    )

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that identify this config, the package's version and the language's version."""
        return recipe_hash(asdict(self), version("vlsurgery"), LANGUAGE_VERSION)
