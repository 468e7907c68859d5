"""``python -m imax_dist`` is the command ``imax``; ``torchrun -m imax_dist`` runs it on many ranks."""

from __future__ import annotations

import sys

from imax_dist.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
