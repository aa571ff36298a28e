"""The settings of steps in a file from elsewhere: what a second run takes of them, checked before anything runs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlsurgery.cli.options import RunDtype
from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.policies import Policy
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import first_fault


class _Read(BaseModel):
    """Other keys are left: they tell what came about, and order nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, strict=True)


class SampleSettings(_Read):
    """As `Sample.settings` has it."""

    budget: str
    share: float = Field(ge=0, le=1)
    steps: list[str]


class PromptSettings(_Read):
    """As `PromptSource.settings` has it."""

    files: dict[str, str] = Field(default_factory=dict)
    images: str | None = None
    sample: SampleSettings | None = None


class StepSettings(_Read):
    """The settings that options are made of again, of any step."""

    level: Level | None = None
    prompts: PromptSettings = Field(default_factory=PromptSettings)
    thinking: Literal["on", "off"] | None = None
    dtype: RunDtype | None = None
    judges: list[str] | None = None
    judge_labels: str | None = None
    tokens: int | None = Field(default=None, ge=1)
    imports: dict[str, str] = Field(default_factory=dict)
    policy: Policy | None = None
    sources: list[Annotated[str, Field(pattern=r"^(base|safety(:.+)?)$")]] | None = Field(default=None, min_length=1)
    sparse: bool = False
    extrapolate: bool = False
    frontier: int = Field(default=0, ge=0)
    price: float | None = Field(default=None, gt=0)
    limits: Limits | None = None
    write_anyway: bool = False


def checked_settings(step: str, settings: Mapping[str, Any]) -> StepSettings:
    """The settings of a step as a file has them. Raises SurgeryError that names the first one that is not as steps
    record it."""
    try:
        return StepSettings.model_validate(settings)
    except ValidationError as error:
        raise SurgeryError(f"settings of {step}: {first_fault(error)}. Take the file as vlsurgery wrote it.") from error
