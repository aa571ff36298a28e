"""A pause of the garbage collector while very many small objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Turn garbage collection off while the block runs, and count what was made as old afterwards.

    Where a hundred thousand small objects are made and kept, the collector would walk them again and again. Usable as
    a decorator too.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_freeze_count() == 0:
                # Freezing and unfreezing moves all objects to the oldest generation, without walking them.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
