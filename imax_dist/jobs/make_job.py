"""A request becomes a job: its name, and the fingerprint of all that its picture depends on.

Apart from job.py: presets and LoRA files are read by code that needs torch, and ``imax status`` does without.
"""

from __future__ import annotations

import hashlib

from imax_dist.jobs.job import Job
from imax_dist.output.own_files import check_name
from imax_dist.pipeline.named_files import named_files
from imax_dist.pipeline.request import Request
from imax_dist.pipeline.switches import load_method
from imax_dist.settings_mapping import canonical

HASH_LENGTH = 16


def make_job(
    request: Request,
    *,
    name: str | None = None,
    priority: int = 0,
    position: int = 0,
    method: str = "",
) -> Job:
    """A job called ``name``, or by the hash of its request. Raises BadValue or BadConfig.

    ``method`` is ``method_of(request)``, where the caller has it already.
    """
    if name is not None:
        check_name(name)
    files, method = canonical(named_files(request)), method or method_of(request)
    made_of = f'{{"files":{files},"method":{method},"request":{canonical(request)}}}'  # canonical as well
    return Job(
        id=name or request.fingerprint[:HASH_LENGTH],
        request=request,
        priority=priority,
        position=position,
        fingerprint=hashlib.sha256(made_of.encode()).hexdigest(),
    )


def method_of(request: Request) -> str:
    """All switches that the request's preset and its own changes stand for, as canonical JSON."""
    return canonical(load_method(request))
