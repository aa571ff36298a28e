"""A measured number and a share, each with its interval, as plain data. Imports no torch."""

from vlsurgery.surgery.results import Frozen


class Estimate(Frozen):
    """A measured number with its 95% interval. `n`: independent requests. `reason` says why `value` is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None


class Rate(Frozen):
    """A share of prompts with its 95% interval; the unit is the request, not the prompt.

    n: prompts. requests: of which they are. reason: why `rate`, or its interval, is missing.
    """

    rate: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    requests: int = 0
    reason: str | None = None
