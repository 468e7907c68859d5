"""``configs/service/*.yaml``: what a service takes from whom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from imax_dist.config import load_config
from imax_dist.errors import BadConfig, MissingInput
from imax_dist.jobs.settings import Limits, PoolSettings
from imax_dist.settings_mapping import from_mapping

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
HOST = r"[A-Za-z0-9.-]+(:\d{1,5})?"


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of a service; those of one token (``imax serve --add-token``) go before the same ones here."""

    limits: str = "strangers"
    """The file of configs/jobs whose ``limits`` hold for every request."""
    models: tuple[str, ...] = ()
    """The only models that may be asked for; none listed: those of ``limits``."""
    loras: dict[str, str] = field(default_factory=dict)
    """LoRA files that may be asked for, by the names clients use."""
    waiting: int = 100
    """Jobs of one token that may wait."""
    per_minute: int = 600
    """Requests of one token a minute."""
    sync_seconds: float = 30.0
    """Longest planned time of a poster that a synchronous request may ask for."""
    streams: int = 50
    """Event streams of one token that may be open."""
    upload_mib: int = 32
    upload_times: int = 20
    """All uploads of one token together may have so many times the size of one."""
    upload_megapixels: float = 50.0
    upload_hours: float = 48.0
    """After which an uploaded picture that no waiting job uses is removed."""
    least_free_mib: int = 1024
    """With less room on the disk of posters or queue, ``/readyz`` says 503 and no upload is taken."""
    webhook_hosts: tuple[str, ...] = ()
    """HOST or HOST:PORT that may be told of a job's end; none listed: nobody."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call the API with a token of theirs."""

    def __post_init__(self) -> None:
        for name in (
            "waiting",
            "per_minute",
            "sync_seconds",
            "streams",
            "upload_mib",
            "upload_times",
            "upload_megapixels",
            "upload_hours",
            "least_free_mib",
        ):
            if not getattr(self, name) > 0:
                raise BadConfig(f"service: {name} {getattr(self, name)} must be above 0")
        for name in self.loras:
            if re.fullmatch(NAME, name) is None:
                raise BadConfig(
                    f"service: loras: {name!r} must be letters, digits, dots, dashes, underscores"
                )
        for host in self.webhook_hosts:
            if re.fullmatch(HOST, host) is None:
                raise BadConfig(f"service: webhook_hosts: {host!r} is not HOST or HOST:PORT")
        for origin in self.cors:
            if re.fullmatch(rf"https?://{HOST}", origin) is None:
                raise BadConfig(f"service: cors: {origin!r} is not an origin like https://shop.example")


def load_service(name: str) -> ServiceSettings:
    """A file of configs/service, or a YAML file by its path. Raises BadConfig, MissingInput for a LoRA."""
    mapping, where = load_config("service", name)
    found = from_mapping(ServiceSettings, mapping, where=where)
    for lora, path in found.loras.items():
        if not Path(path).is_file():
            raise MissingInput(f"{where}: loras: {lora}: {path} is not a file")
    return found


def limits_of(settings: ServiceSettings) -> Limits:
    """What every request is held to: never a file of this machine, whatever the pool's file says."""
    mapping, where = load_config("jobs", settings.limits)
    pool: PoolSettings = from_mapping(PoolSettings, mapping, where=where)
    return replace(pool.limits, files=False, models=settings.models or pool.limits.models)
