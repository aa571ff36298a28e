"""Model surgery that gives vision-language models back the refusals that adaptation cost them.

    import vlsurgery

    changed = vlsurgery.diff("llama/", "llava/", "llava-safe/")     # how far weights moved, where
    found = vlsurgery.probe("llama/", "llava/")                     # where refusals were lost
    merged = vlsurgery.merge("ties", "llava/", "llava-safe/", base="llama/", density=0.5, out="merged/")
    shown = vlsurgery.evaluate("llava/", "merged/")                 # refused, complied, neither
    said = vlsurgery.judge(["I can't help with that."])             # one verdict a completion, with its reason
    with vlsurgery.ablate(model, direction): ...                    # a direction taken out of a model in memory; also
                                                                    # add, patch, transplant, and record
    watch = vlsurgery.TrainerCallback(every=50)                     # logs refusals while transformers' Trainer trains
    vlsurgery.figures.weight_change.plot(changed)

A string stands for a path or a name on the Hub wherever a checkpoint is taken, and for a URL where no model is run.
Nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlsurgery import figures as figures
    from vlsurgery.cli.face import (
        diff as diff,
        evaluate as evaluate,
        judge as judge,
        load_case as load_case,
        merge as merge,
        open as open,
        probe as probe,
    )
    from vlsurgery.probes import directions as directions
    from vlsurgery.probes.interventions import (
        ablate as ablate,
        add as add,
        patch as patch,
        record as record,
        transplant as transplant,
    )
    from vlsurgery.probes.trajectory.callback import TrainerCallback as TrainerCallback
    from vlsurgery.surgery.checkpoint import Checkpoint as Checkpoint
    from vlsurgery.surgery.merge.recipe import Recipe as Recipe
    from vlsurgery.surgery.methods import METHODS as METHODS

# Name -> the module that it comes from.
_HOMES = {
    **dict.fromkeys(("open", "diff", "probe", "evaluate", "judge", "merge", "load_case"), "vlsurgery.cli.face"),
    **dict.fromkeys(("ablate", "add", "patch", "record", "transplant"), "vlsurgery.probes.interventions"),
    "Checkpoint": "vlsurgery.surgery.checkpoint",
    "Recipe": "vlsurgery.surgery.merge.recipe",
    "METHODS": "vlsurgery.surgery.methods",
    "TrainerCallback": "vlsurgery.probes.trajectory.callback",
}
_MODULES = {"figures": "vlsurgery.figures", "directions": "vlsurgery.probes.directions"}
__all__ = [
    "METHODS",
    "Checkpoint",
    "Recipe",
    "TrainerCallback",
    "ablate",
    "add",
    "diff",
    "directions",
    "evaluate",
    "figures",
    "judge",
    "load_case",
    "merge",
    "open",
    "patch",
    "probe",
    "record",
    "transplant",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'vlsurgery' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
