"""The names of policies and of what a merge moves toward. Light: the program's help imports it."""

from typing import Literal

Policy = Literal["best", "linearised", "fit", "attribution", "weights", "uniform"]
Toward = Literal["base", "safety", "both"]
