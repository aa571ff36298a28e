"""Errors of other packages, told in one line."""

from vlsurgery.surgery.runtime.visible import visible

MAX_LETTERS = 300


def one_line(error: Exception) -> str:
    """The message of an error, safe to print and of bounded length; its class where it has none."""
    return " ".join(visible(str(error)[: 4 * MAX_LETTERS]).split())[:MAX_LETTERS].rstrip(".") or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a CPU or on a GPU: no fault of a file."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator" in str(error)
