"""Keep the model libraries' own bars and advice off the terminal."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Errors only, no progress bars; called once by a command line or a worker."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
