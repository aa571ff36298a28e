"""A checkpoint opened again by another process, which must find the same one."""

from vlsurgery.surgery.checkpoint.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import CheckpointRef


def reopened(role: str, ref: CheckpointRef) -> Checkpoint:
    """The checkpoint of a role, in another process. Raises CheckpointError where it can't be opened here, or is another
    one."""
    checkpoint = Checkpoint.reopen(ref)
    if not checkpoint.is_known_as(ref.identity):
        raise CheckpointError(
            f"{role} ({ref.path}): is another checkpoint than was opened at first: its identity is "
            f"{checkpoint.identity}, and was {ref.identity}. Run the same command again once nothing writes to it."
        )
    return checkpoint
