"""Lets xfuser's real code run on gloo and CPUs: it asks for a CUDA build of torch when it is imported.

Only the questions it asks about the machine are answered differently; exchange, ring and merge are its own.
Its Triton kernels are not used here, so an empty triton stands in while it is imported.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from unittest.mock import MagicMock


def xfuser_is_installed() -> bool:
    return all(find_spec(package) is not None for package in ("xfuser", "yunchang"))


def answer_for_cpu() -> None:
    """Import xfuser as if this machine had MPS, then name the CPU and gloo. In a process of its own."""
    import torch
    import torch.backends.mps as mps

    real = mps.is_available
    mps.is_available = lambda: True
    absent = [name for name in ("triton", "triton.language") if name not in sys.modules]
    if find_spec("triton") is None:
        sys.modules.update({name: MagicMock() for name in absent})
    try:
        import xfuser.envs as envs
        from xfuser.model_executor.layers import usp
    finally:
        mps.is_available = real
        for name in absent if find_spec_is_mocked() else []:
            del sys.modules[name]
    envs.get_device = lambda _: torch.device("cpu")
    envs.get_device_name = lambda: "cpu"
    envs.get_torch_distributed_backend = lambda: "gloo"
    import xfuser.core.distributed.group_coordinator as coordinator
    import xfuser.core.distributed.parallel_state as state
    import yunchang

    state.HAS_LONG_CTX_ATTN = coordinator.HAS_LONG_CTX_ATTN = True
    usp.PROCESS_GROUP = yunchang.globals.PROCESS_GROUP


def find_spec_is_mocked() -> bool:
    return isinstance(sys.modules.get("triton"), MagicMock)
