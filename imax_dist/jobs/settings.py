"""``configs/jobs/*.yaml``: how many gangs of how many ranks, how long to wait, what to try again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from imax_dist.errors import BadConfig
from imax_dist.liveness.silence import Silence

UNITS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}
OWN_PLACE_S, CLUSTER_PLACE_S = 120.0, 1800.0


@dataclass(frozen=True)
class Deadlines:
    """Seconds. A gang that is silent for longer is taken for hung, destroyed and rebuilt."""

    place: float | None = None
    """Room found for a gang's ranks. None: 120 on a Ray of our own, for which nobody starts a machine, and
    1800 on a cluster, whose autoscaler takes 5 to 15 minutes for one."""
    join: float = 300.0
    """The ranks of a gang that has room started and joined."""
    first_step: float = 1800.0
    """A step of a size this gang has no median for yet."""
    step_factor: float = 10.0
    """Every other step: this many times the gang's own median step."""
    step_least: float = 5.0
    """Never less than this a step."""
    stage: float = 1800.0
    """Load, prompt, enlarge, decode and write, the first time for a model and size."""
    stage_least: float = 60.0
    """From then on ``step_factor`` times the gang's own median of that stage, never less than this."""
    heartbeat: float = Silence.heartbeat
    """A rank whose process does not answer, within steps."""
    stage_heartbeat: float = Silence.stage_heartbeat
    """The same elsewhere: loading may hold the interpreter for long."""
    exchange: float = Silence.exchange
    """Every rank of a gang waits for the others in the middle of a step."""
    block_factor: float = Silence.factor
    """A rank that computes in the middle of a step: this many times its own usual time for such a piece."""
    first_block: float = Silence.first_block
    """The same in the first two steps of a pass; five times as long where the network is compiled."""
    stage_quiet: float = Silence.stage
    """A stage without steps in which nothing is computed, read or written."""
    grace: float = 2.0
    """The other ranks, once one has failed."""
    stop: float = 120.0
    """Finishing the step and the checkpoint after a SIGTERM."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value is None or value > 0):
                raise BadConfig(f"jobs: deadlines.{name} {value} must be above 0")

    def room(self, *, own_ray: bool) -> float:
        """``place``, or what it is where Ray runs."""
        unasked = OWN_PLACE_S if own_ray else CLUSTER_PLACE_S
        return unasked if self.place is None else self.place


@dataclass(frozen=True)
class Retry:
    """Attempts without progress (no new step) before a poster is given up, and the wait between."""

    attempts: int = 4
    backoff: float = 2.0
    """Seconds before the second attempt; doubled each time."""
    longest_backoff: float = 300.0
    disk_full: float = 600.0
    """Seconds that a change of state waits for room in the batch's folder before the batch ends."""
    gang_builds: int = 3
    """Failed builds in a row, with no gang alive, before the batch gives up."""


@dataclass(frozen=True)
class Limits:
    """What a manifest from a stranger may ask for."""

    manifest_mib: int = 64
    posters: int = 100_000
    count: int = 1_000
    prompt: int = 8_000
    """Characters."""
    megapixels: float = 1_000.0
    steps: int = 1_000
    files: bool = True
    """Whether a line may name files of this machine: guide, LoRA, preset, model folder, print files' own."""
    models: tuple[str, ...] = ()
    """The only models a manifest may name; none listed: any."""


@dataclass(frozen=True)
class Keep:
    """``12h``, ``30d``, ``8w`` after a job is over; empty: for ever."""

    posters: str = ""
    """Folder and entry of a job: it is forgotten, and the same request is rendered again."""
    checkpoints: str = ""
    """Of failed and cancelled jobs; a retry begins at the first step."""
    events: str = ""
    """Changes of state in the store."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            seconds_of(value, where=f"jobs: keep.{name}")


def seconds_of(text: str, *, where: str) -> float | None:
    """``30d`` in seconds; None if empty. Raises BadConfig."""
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6})\s*([hdw])", text)
    if found is None:
        raise BadConfig(f"{where} {text!r} is not a duration; write for example 12h, 30d or 8w")
    return float(found.group(1)) * UNITS[found.group(2)]


@dataclass(frozen=True)
class PoolSettings:
    """One pool of gangs."""

    gangs: int = 1
    ranks: int = 1
    """Ranks of a gang; they render one poster together."""
    least_gangs: int = 0
    """Gangs that an open queue (imax serve) keeps, also without work; it has up to ``gangs``."""
    idle: float = 120.0
    """Seconds without work after which an open queue gives a gang's devices back."""
    open: tuple[str, ...] = ()
    """Which of ``gangs`` and ``ranks`` nobody named: the planner chooses them (jobs/sizing.py)."""
    ulysses: int | None = None
    """Ulysses degree of a gang; None: as the parallel file says."""
    least_link_gb_s: float | None = None
    """A gang on several nodes whose link carries less, GB/s a rank, is refused; planned gangs have it set."""
    native: Literal["rank0", "shared"] | None = None
    """Who makes the native picture, where the parallel file leaves it to the planner (``native: auto``)."""
    compile: Literal["none", "regional"] | None = None
    """Whether blocks are compiled, where the parallel file leaves it to the planner (``compile: auto``)."""
    hardware: str | None = None
    """A name of configs/hardware or a file, for the planner; None: by what the cluster has."""
    most_ranks: int | None = None
    """A poster that runs out of memory is tried on twice the ranks, up to this many."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_rank: int = 1
    threads: int | None = None
    """torch threads of a rank; None: as Ray sets it."""
    parallel: str = "auto"
    """A file of configs/parallel, or a YAML file by its path."""
    placement: Literal["STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD"] = "STRICT_PACK"
    checkpoint_every: int = 5
    preview_every: int = 0
    """Steps between previews of a running poster, ``preview.jpg`` in its folder; 0: none."""
    proofs_first: bool = False
    """Make the native images of waiting posters first, a different one on every rank."""
    passes_ahead: int | None = None
    """Passes of a poster, the native one first and never the last, that each rank makes alone for a poster
    of its own before all ranks make these posters together: those too small to be shared well. None is
    left to the planner; 0 is never."""
    proof: Literal["native", "small"] = "native"
    """What a proof shows: the native picture, or a small render of the whole recipe (pipeline/proof.py); of a
    poster with a guide it is always the latter."""
    deliver: str = ""
    """An object store that takes each finished poster before it counts as done: ``s3://bucket/prefix``."""
    checkpoints: str = ""
    """A folder, local or shared by the ranks' hosts, for the checkpoints; empty: in each poster's own."""
    notice: str = ""
    """A file that appears on a rank's host when it is about to be taken away (a spot machine's notice): the
    last finished step is checkpointed at once, and the gang is rebuilt on other hosts. On the driver's own
    host it ends the batch with 75."""
    keep: Keep = Keep()
    deadlines: Deadlines = Deadlines()
    retry: Retry = Retry()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for name in ("gangs", "ranks", "cpus_per_rank"):
            if getattr(self, name) < 1:
                raise BadConfig(f"jobs: {name} {getattr(self, name)} must be at least 1")
        if self.least_gangs < 0 or (self.least_gangs > self.gangs and "gangs" not in self.open):
            raise BadConfig(f"jobs: least_gangs {self.least_gangs} must be between 0 and gangs {self.gangs}")
        if not self.idle > 0:
            raise BadConfig(f"jobs: idle {self.idle} must be above 0")
        for name in ("checkpoint_every", "preview_every", "passes_ahead"):
            if (getattr(self, name) or 0) < 0:
                raise BadConfig(f"jobs: {name} {getattr(self, name)} must be 0 (never) or more")
        if self.retry.attempts < 1:
            raise BadConfig(f"jobs: retry.attempts {self.retry.attempts} must be at least 1")
