"""The model libraries: imported in one go, and kept from writing their bars and advice on the terminal."""

from __future__ import annotations

import functools
import gc
import importlib

HEAVY = ("diffusers.models.transformers", "diffusers.models.autoencoders", "transformers.modeling_utils")


@functools.cache
def import_libraries() -> None:
    """Import diffusers' networks and transformers, once, unseen by the garbage collector.

    They make hundreds of thousands of objects that live to the end; looking through them again and again is a
    sixth of the time that a command takes to start.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        for name in HEAVY:
            importlib.import_module(name)
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def quiet_libraries() -> None:
    """Errors only, no progress bars; called once by a command line or a worker."""
    import_libraries()
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
