"""``python -m imax_dist`` is the command ``imax``; ``torchrun -m imax_dist`` runs it on many ranks."""

from __future__ import annotations

import gc
import os
import sys

from imax_dist.cli.main import main


def entry() -> None:
    """Run the command line and end the process with its exit code; a rank that failed ends at once.

    An interpreter that shuts down waits for threads and communicators, and these for ranks that wait for this
    one; a launcher sees the failure only when the process is gone (DECISIONS 64). It also looks once more
    for garbage among what the libraries have made, half a second from which they are spared.
    """
    try:
        code = main()
    finally:
        gc.freeze()
    if code and "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
