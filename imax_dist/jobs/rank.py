"""One rank of a gang: a process that keeps its model and renders its part of one poster after another.

Runs as a Ray actor with a few threads: one renders, one answers the pool's long polls, one takes orders.
Knows nothing of queues and retries.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from torch import Tensor

from imax_dist.errors import ImaxError, Preempted
from imax_dist.events import InJob, Listener, MemoryPeak, Note, RenderEvent, both, ignore, stage
from imax_dist.events.log import append_to
from imax_dist.jobs.deliver import deliver
from imax_dist.jobs.job import JobFolder
from imax_dist.jobs.task import LossKind, Task
from imax_dist.liveness.beacon import Beacon
from imax_dist.liveness.evidence import write_evidence
from imax_dist.liveness.heartbeat import Heartbeat, RankReport
from imax_dist.output.image.poster import recipe_path, write_native, write_poster
from imax_dist.pipeline.checkpoint import CheckpointFolder
from imax_dist.pipeline.memory import peak_bytes
from imax_dist.pipeline.preview import PreviewFile
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import Renderer

COLLECTIVE_TIMEOUT_S = 6 * 3600.0
"""Longer than any poster: the pool notices a hang much sooner and ends the process."""
STORE_TIMEOUT_S = 60.0


class Rank:
    """One of ``world_size``; ``rank`` is provisional until ``take_rank``."""

    def __init__(
        self, rank: int, world_size: int, *, device: str, threads: int | None, notice: str = ""
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.threads = threads
        self.notice = notice
        self._store: Any = None
        self._renderer: Renderer | None = None
        self._stop_requested: set[str] = set()
        self._checkpoints: dict[str, CheckpointFolder] = {}
        self._events: list[InJob] = []
        self._dropped = 0
        self._news = threading.Condition()
        self._beacon = Beacon(device)
        self._last_report: RankReport | None = None

    def place(self) -> dict[str, str]:
        """Node id and address of this rank's host."""
        node, address = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
        return {"node": str(node), "address": str(address)}

    def take_rank(self, rank: int) -> None:
        """Be this rank of the gang, now that it is known which node each process runs on; begin to beat."""
        self.rank = rank
        device = torch.device("cuda" if self.device == "cuda" else "cpu")
        Heartbeat(rank, self._beacon, self._look, device=device, leaving=self.leaving).start()

    def leaving(self) -> bool:
        """Whether this rank's host has been told that it is shutting down."""
        return bool(self.notice) and Path(self.notice).exists()

    def open_store(self, host: str) -> int:
        """Rank 0 opens the gang's meeting point on its own ``host`` and a free port, which it returns.

        On that address only: left to itself, the store listens on every interface.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        door = socket.create_server((host, 0), family=family, backlog=self.world_size + 8)
        port = int(door.getsockname()[1])
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            self.world_size,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=door.detach(),
        )
        return port

    def join(self, host: str, port: int, parallel: ParallelSettings) -> dict[str, Any]:
        """Meet the other ranks; returns process id and host."""
        if self._store is None and self.world_size > 1:
            timeout = timedelta(seconds=STORE_TIMEOUT_S)
            self._store = dist.TCPStore(  # type: ignore[attr-defined]
                host, port, self.world_size, is_master=False, timeout=timeout
            )
        self._renderer = Renderer.join(
            self.rank,
            self.world_size,
            parallel,
            device=self.device,
            store=self._store,
            timeout_s=COLLECTIVE_TIMEOUT_S,
            marks=self._beacon,
        )
        return {"pid": os.getpid(), "host": os.uname().nodename}

    def run(self, task: Task) -> dict[str, Any]:
        """Do one task; never raises. ``finished``, ``stopped``, ``refused`` or ``lost`` with the details."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            return {"finished": WORK[task.work](self, task)}
        except Preempted:
            return {"stopped": {}}
        except ImaxError as error:
            details = {"error": type(error).__name__, "message": str(error)}
            return {"refused": {**details, "retryable": error.retryable}}
        except Exception as error:  # the process may be in any state now: the gang ends with it
            return {"lost": {"kind": loss_kind(error), "message": f"{type(error).__name__}: {error}"}}
        finally:
            self._stop_requested.discard(task.job_id)
            self._checkpoints.pop(task.job_id, None)
            self._emit(task, MemoryPeak(self.rank, peak_bytes()))

    def events(self, after: int, wait_s: float) -> tuple[list[InJob], RankReport | None]:
        """Events from number ``after`` on, and where this rank is; waits up to ``wait_s`` for the first.

        The question is an acknowledgement: what came before ``after`` is dropped.
        """
        with self._news:
            del self._events[: after - self._dropped]
            self._dropped = after
            if not self._events:
                self._news.wait(wait_s)
            return list(self._events), self._last_report

    def _look(self, report: RankReport) -> None:
        self._last_report = report

    def evidence(self, folder: str) -> None:
        """The stacks of this rank's threads, whatever its own work waits for."""
        write_evidence(Path(folder), self.rank)

    def stop(self, job_id: str) -> None:
        """Write down the last finished step, then finish the one that runs, checkpoint and leave this job."""
        self._stop_requested.add(job_id)
        if (checkpoints := self._checkpoints.get(job_id)) is not None:
            with suppress(ImaxError):  # the end of the step says what is wrong with the folder
                checkpoints.save_last()

    def render_poster(self, task: Task) -> dict[str, Any]:
        """All ranks together; rank 0 writes the poster, then DONE. Returns what DONE says."""
        assert self._renderer is not None
        folder = JobFolder(Path(task.folder))
        checkpoints = self._checkpoints[task.job_id] = checkpoints_of(task)
        listen = self._listener(task) if self.rank == 0 else ignore
        started = time.perf_counter()
        rendering = self._renderer.render(
            task.request,
            checkpoints=checkpoints,
            listen=listen,
            stop=lambda: task.job_id in self._stop_requested,
            show_native=lambda pixels: write_native(folder.path / "native.png", pixels),
            preview=PreviewFile(folder.preview, task.preview_every) if task.preview_every else None,
        )
        if rendering.picture is None:
            return {}
        listen = both(listen, self._beacon.on_event)
        with stage(listen, "write"):
            recipe = write_poster(folder.poster, rendering.picture.bands(), rendering.recipe)
            facts = {
                "pixels_sha256": recipe["pixels_sha256"],
                "latents_sha256": hash_tensor(rendering.latents),
                "seconds": round(time.perf_counter() - started, 3),
            }
            names = {folder.poster.name, recipe_path(folder.poster).name, *recipe.get("files", {})}
            done, foreign = folder.finish(task.fingerprint, facts, names=sorted(names))
        for name in foreign:
            listen(Note(f"{folder.path / name} does not belong to this poster and was kept; move it away"))
        if task.deliver:
            done = self._deliver(task, done, listen)
        checkpoints.remove()
        folder.preview.unlink(missing_ok=True)
        return done

    def deliver_poster(self, task: Task) -> dict[str, Any]:
        """Rank 0 sends what an earlier attempt has finished. Returns what DONE says, and where it is."""
        done = JobFolder(Path(task.folder)).finished(task.fingerprint) if self.rank == 0 else None
        listen = both(self._listener(task), self._beacon.on_event)
        return {} if done is None else self._deliver(task, done, listen)

    def _deliver(self, task: Task, done: dict[str, Any], listen: Listener) -> dict[str, Any]:
        with stage(listen, "deliver"):
            return {**done, "delivered": deliver(Path(task.folder), task.deliver, done, listen)}

    def make_proof(self, task: Task) -> dict[str, Any]:
        """This rank alone: the native picture, and the checkpoint that the poster resumes from."""
        assert self._renderer is not None
        folder = JobFolder(Path(task.folder))
        checkpoints = self._checkpoints[task.job_id] = checkpoints_of(task)

        def show(pixels: torch.Tensor) -> None:
            write_native(folder.proof, pixels)
            if task.passes_ahead > 1:  # the poster goes on after it, and shows it no more
                write_native(folder.path / "native.png", pixels)

        self._renderer.proof(
            task.request,
            checkpoints=checkpoints,
            show=show,
            listen=self._listener(task),
            stop=lambda: task.job_id in self._stop_requested,
            small=task.small_proof,
            passes=task.passes_ahead,
        )
        return {}

    def _listener(self, task: Task) -> Listener:
        log = append_to(JobFolder(Path(task.folder)).events, attempt=task.attempt)

        def listen(event: RenderEvent) -> None:
            with suppress(OSError):  # a log only: what has to be written reports a full disk
                log(event)
            self._emit(task, event)

        return listen

    def _emit(self, task: Task, event: RenderEvent) -> None:
        """Wake the thread that answers the pool's poll."""
        with self._news:
            self._events.append(InJob(task.job_id, event))
            self._news.notify_all()


WORK: dict[str, Callable[[Rank, Task], dict[str, Any]]] = {
    "poster": Rank.render_poster,
    "proof": Rank.make_proof,
    "delivery": Rank.deliver_poster,
}


def checkpoints_of(task: Task) -> CheckpointFolder:
    """Where the task's checkpoints are."""
    place = task.checkpoints or JobFolder(Path(task.folder)).checkpoints
    return CheckpointFolder(Path(place), every=task.checkpoint_every)


def loss_kind(error: Exception) -> LossKind:
    """Out of memory is another matter than any other crash: the same ranks would fail again."""
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return "out_of_memory" if memory or "can't allocate memory" in str(error) else "crashed"


def hash_tensor(x: Tensor) -> str:
    """SHA-256 (hex) over a tensor's values in row order."""
    raw = x.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.tobytes()).hexdigest()
