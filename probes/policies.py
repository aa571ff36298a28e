"""How the coefficients of a merge can be chosen, and toward what. Light: the program's help imports it."""

from typing import Literal

Policy = Literal["fit", "attribution", "weights", "uniform"]
Toward = Literal["base", "safety", "both"]
