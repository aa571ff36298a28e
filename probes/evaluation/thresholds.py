"""How much evidence words take. Imports nothing, so that whatever writes sentences can use it."""

from typing import Final

MIN_REQUESTS_FOR_A_CLAIM: Final = 30  # below it numbers are shown, and no sentence is made of them


def enough(requests: int) -> bool:
    """Whether a sentence may be made of so many independent requests."""
    return requests >= MIN_REQUESTS_FOR_A_CLAIM
