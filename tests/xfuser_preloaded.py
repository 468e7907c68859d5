"""xfuser imported once, in the process that ranks (tests/ranks.py) are copies of: .2 CPU seconds each."""

from __future__ import annotations

from xfuser_on_cpu import answer_for_cpu, xfuser_is_installed

if xfuser_is_installed():
    answer_for_cpu()
