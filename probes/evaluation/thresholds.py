"""Bounds of what may be said from how much evidence. Light: figures and terminal import it."""

MIN_REQUESTS_FOR_A_CLAIM = 30
"""Requests below which no claim is made in words, whatever the interval."""
