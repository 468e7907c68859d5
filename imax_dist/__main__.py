"""``python -m imax_dist`` is the command ``imax``; ``torchrun -m imax_dist`` runs it on many ranks."""

from __future__ import annotations

import os
import sys

from imax_dist.cli.main import main


def entry() -> None:
    """Run the command line and end the process with its exit code; a rank that failed ends at once.

    An interpreter that shuts down waits for threads and communicators, and these for ranks that wait for this
    one; a launcher sees the failure only when the process is gone (DECISIONS 64).
    """
    code = main()
    if code and "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
