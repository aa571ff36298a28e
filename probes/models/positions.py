"""Where the user's text ends, in the rendered prompt and in token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlsurgery.surgery.errors import CheckpointError

# Two texts that end in different letters: what two prompts end with alike is then the template's.
ASKED = ("the request here", "another question")
MAX_ADDED = 8  # tokens that a processor may put behind a rendered prompt; PaliGemma's puts one
COMPARED = 4  # tokens of the user's text by which the place is told


@dataclass(frozen=True)
class Ending:
    """What a template puts behind the user's text, the same for all prompts. name: the checkpoint's."""

    name: str
    text: str

    def end_of_text(self, rendered: str, asked: str) -> int:
        """The offset in a rendered prompt at which the user's text ends.

        Raises CheckpointError where the template rewrites the text, or puts something else behind it than usual.
        """
        wanted = asked.strip()
        if wanted not in rendered:
            raise CheckpointError(
                f"the chat template of {self.name} rewrites the user's text, so the last "
                "instruction token can't be found. Give the checkpoint a template that keeps the text as it is."
            )
        head = rendered.removesuffix(self.text)
        if not rendered.endswith(self.text) or not head.rstrip().endswith(wanted):
            raise CheckpointError(
                f"what the chat template of {self.name} puts behind the user's text depends on the prompt: the "
                "positions of different prompts can't be compared. Use a template whose ending is fixed."
            )
        return len(head)


def common_ending(one: str, other: str) -> str:
    """The longest text with which both end."""
    shorter = min(len(one), len(other))
    count = next((at for at in range(shorter) if one[-1 - at] != other[-1 - at]), shorter)
    return one[len(one) - count :]


def tokens_behind(offsets: Sequence[tuple[int, int]], end: int) -> int:
    """How many tokens stand wholly behind an offset of the text, without those of no letters."""
    return sum(start >= end and stop > start for start, stop in offsets)


def tokens_added(ids: Sequence[int], plain: Sequence[int], post: int) -> int | None:
    """How many tokens a processor has put behind a prompt; None where its ids don't hold the prompt's end.

    ids: what the processor made, pictures included. plain: the rendered prompt alone. post: its last tokens that are
    the template's.
    """
    compared = min(len(plain), post + COMPARED)
    for length in range(compared, post, -1):  # the first token of a text may be written otherwise behind a picture
        tail = list(plain[len(plain) - length :])
        for added in range(min(MAX_ADDED, len(ids) - length) + 1):
            stop = len(ids) - added
            if list(ids[stop - length : stop]) == tail:
                return added
    return None
