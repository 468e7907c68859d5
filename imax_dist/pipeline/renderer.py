"""Ranks that stay joined and a model that stays loaded from one poster to the next."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Unpack

import torch
import torch.distributed as dist
from torch import Tensor

from imax_dist.events import Listener, Note, both, ignore, stage
from imax_dist.liveness.beacon import SILENT, Marks
from imax_dist.models.base import FlowModel
from imax_dist.parallel.broadcast import on_every_rank
from imax_dist.parallel.devices import check_devices, wait_for_memory
from imax_dist.parallel.topology import Topology, detect, pick_device, process_group
from imax_dist.pipeline.check import check_request
from imax_dist.pipeline.loading import change_requested_loras, differs_in_loras, load_requested
from imax_dist.pipeline.proof import alone, render_proof, render_small
from imax_dist.pipeline.ranks import ParallelSettings, Ranks, checked_link, join_for
from imax_dist.pipeline.render import Rendering, render_with
from imax_dist.pipeline.request import Request, key_of
from imax_dist.pipeline.run import RenderHooks


class Renderer:
    """One rank's part of many renders; every rank of a gang has one and calls it with the same requests.

    One model is kept: another one asked for takes its place. ``with Renderer() as renderer:`` is one process
    alone, or the ranks that torchrun started; it leaves their group at its end.
    """

    def __init__(
        self,
        topology: Topology | None = None,
        parallel: ParallelSettings | None = None,
        *,
        open_group: ExitStack | None = None,
        keeps_base: bool = True,
    ) -> None:
        """``keeps_base``: whether LoRA files may change from one poster to the next, the weights kept."""
        self.topology = topology or detect()
        self.parallel = parallel or ParallelSettings()
        self._keeps_base = keeps_base
        self._open = open_group or ExitStack()
        if open_group is None and not (dist.is_available() and dist.is_initialized()):
            self._open.enter_context(process_group(self.topology))
        self._kept: tuple[tuple[object, ...], bool, FlowModel] | None = None
        self._ranks: dict[tuple[Any, ...], Ranks] = {}
        self._alone: dict[tuple[Any, ...], Ranks] = {}

    @classmethod
    def join(
        cls,
        rank: int,
        world_size: int,
        parallel: ParallelSettings,
        *,
        device: str,
        store: Any,
        timeout_s: float,
        marks: Marks = SILENT,
    ) -> Renderer:
        """Meet the other ranks at ``store`` (a torch.distributed store; None for a world of one).

        ``timeout_s`` limits every wait between ranks. ``close`` ends the membership. Raises BadConfig or
        SlowLink, before any poster is begun, if these ranks cannot work together.
        """
        topology = Topology(rank, world_size, 0, pick_device(device, local_rank=0), marks)
        opened = ExitStack()
        if topology.device.type == "cuda":
            wait_for_memory(partial(torch.cuda.mem_get_info, topology.device), sleep=time.sleep)
        opened.enter_context(process_group(topology, store=store, timeout_s=timeout_s))
        checked_link(parallel, topology, check_devices(topology))
        return cls(topology, parallel, open_group=opened)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the group."""
        self._open.close()

    def render(self, request: Request, **hooks: Unpack[RenderHooks]) -> Rendering:
        """Render one poster on all ranks together, which call this with the same request.

        Raises the errors of imax_dist.errors; Preempted if ``stop`` returned True, after a checkpoint.
        """
        listen = hooks["listen"] = self._marked(hooks)
        model = on_every_rank(
            lambda: self.model(request, listen=listen, with_text_encoders=self.topology.is_first),
            self.topology,
        )
        kind = _kind(model)
        if kind not in self._ranks:
            with stage(listen, "join"):
                self._ranks[kind] = join_for(model, self.parallel, self.topology)
            for note in self._ranks[kind].notes:
                listen(Note(note))
        return render_with(model, self._ranks[kind], request, **hooks)

    def proof(
        self,
        request: Request,
        *,
        show: Callable[[Tensor], None],
        small: bool = False,
        passes: int = 0,
        **hooks: Unpack[RenderHooks],
    ) -> None:
        """``show`` the native picture or a ``small`` render, made on this rank alone; others may make others
        meanwhile. So many ``passes``, the native one first, but not the poster's last."""
        hooks["listen"] = self._marked(hooks)
        model = self.model(request, listen=hooks["listen"], with_text_encoders=True)
        kind = _kind(model)
        if kind not in self._alone:
            self._alone[kind] = alone(model, self.parallel, self.topology.marks)
        if small:
            render_small(model, request, show=show, ranks=self._alone[kind], **hooks)
            return
        render_proof(model, request, show=show, ranks=self._alone[kind], passes=passes, **hooks)

    def _marked(self, hooks: RenderHooks) -> Listener:
        """The listener, and what marks where this rank is. Raises TypeError for a hook that there is not."""
        if unknown := hooks.keys() - RenderHooks.__annotations__.keys():
            raise TypeError(f"render() got an unexpected keyword argument {min(unknown)!r}")
        return both(hooks.get("listen", ignore), self.topology.marks.on_event)

    def model(self, request: Request, *, with_text_encoders: bool, listen: Listener = ignore) -> FlowModel:
        """The request's model, from the last time or loaded now."""
        wanted = key_of(request)
        if self._kept is not None:
            kept, has_encoders, model = self._kept
            if kept == wanted and (has_encoders or not with_text_encoders):
                return model
            del model
        check_request(request, self.parallel, guide=with_text_encoders)
        with stage(listen, "load"):
            changed = self._with_loras(request, with_text_encoders=with_text_encoders)
            model = changed or self._loaded(request, with_text_encoders=with_text_encoders)
        for note in model.notes:
            listen(Note(note))
        self._kept = (wanted, with_text_encoders, model)
        return model

    def _with_loras(self, request: Request, *, with_text_encoders: bool) -> FlowModel | None:
        """The kept model with the request's LoRA files for its own; None if it is another model."""
        if self._kept is None or self.parallel.compiles:
            return None
        kept, has_encoders, model = self._kept
        if not differs_in_loras(kept, key_of(request)) or (with_text_encoders and not has_encoders):
            return None
        self._kept = None  # until it is whole again
        change_requested_loras(model, request)
        return model

    def _loaded(self, request: Request, *, with_text_encoders: bool) -> FlowModel:
        """Loaded again, the one before freed first."""
        if self._kept is not None:
            self._kept = None
            gc.collect()
        device = self.topology.device
        return load_requested(
            request,
            self.parallel,
            device=device,
            with_text_encoders=with_text_encoders,
            keeps_base=self._keeps_base,
        )


def render(
    request: Request,
    *,
    topology: Topology | None = None,
    parallel: ParallelSettings | None = None,
    **hooks: Unpack[RenderHooks],
) -> Rendering:
    """Render one poster from nothing; under torchrun every rank calls this with the same request.

    Raises as ``Renderer.render``.
    """
    with Renderer(topology, parallel, keeps_base=False) as renderer:
        return renderer.render(request, **hooks)


def _kind(model: FlowModel) -> tuple[Any, ...]:
    """What mesh and kernel are chosen for."""
    return model.spec.heads, model.spec.kv_heads, model.spec.head_dim, model.dtype
