"""``python -m tests.chaos.in_threads serve ...``: ``imax serve`` whose gangs are threads, without Ray.

All else is as it is: queue, pool, HTTP, checkpoints, delivery and the render itself. A kill of the server
kills its ranks too. For ``tests.chaos.served --threads``, on machines where Ray does not start in time.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from thread_gang import ThreadGang

from imax_dist.cli.main import main
from imax_dist.service import server

if __name__ == "__main__":
    vars(server).update(ray_cluster=lambda *_, **__: nullcontext(), RayGangs=lambda _: ThreadGang)
    sys.exit(main(sys.argv[1:]))
