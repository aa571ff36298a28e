"""The claims C1 to C6 about vision-language adaptation, measured on the results of cases. Pure functions; no torch."""

from vlsurgery.probes.claims.findings import CaseFindings
from vlsurgery.probes.claims.measure import measure

__all__ = ["CaseFindings", "measure"]
