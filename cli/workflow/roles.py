"""Whether checkpoints can have the roles that they were given."""

from collections.abc import Mapping

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.completeness import check_weights
from vlsurgery.surgery.errors import SurgeryError


def check_roles(named: Mapping[str, str], opened: Mapping[str, Checkpoint]) -> None:
    """Refuse weights that can't be compared, and a base that sees beside an adapted model that does not: they are
    swapped.

    named: role -> the reference that the user gave. Raises SurgeryError with the command that is right.
    """
    for role, checkpoint in opened.items():
        check_weights(role, checkpoint)
    if _sees(opened["base"]) and not _sees(opened["adapted"]):
        rest = " ".join(named[role] for role in named if role not in ("base", "adapted"))
        right = f"vlsurgery diff {named['adapted']} {named['base']} {rest}".rstrip()
        raise SurgeryError(
            f"{named['base']} was given as BASE and has a vision tower; {named['adapted']} was given as ADAPTED and "
            f"has none: the roles are swapped. Give the chat model from before adaptation first: {right}"
        )


def _sees(checkpoint: Checkpoint) -> bool:
    return any(site.tower == "vision" for site in checkpoint.sites.values())
