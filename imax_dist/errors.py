"""What can go wrong, one class for each thing a caller would do differently.

Every class carries the exit code of the command line (see GUIDE, "Output and exit codes") and whether the
same request is worth trying again unchanged.
"""

from __future__ import annotations


class ImaxError(Exception):
    """Base class; the message is one sentence: what was asked, what holds, what to do."""

    exit_code = 70
    retryable = False
    already_reported = False
    """Whether another rank says it to the user."""


class BadValue(ImaxError):
    """A value in a request cannot be used: a size, a name, a number."""

    exit_code = 64


class BadManifest(ImaxError):
    """A manifest or a file that came with the request does not parse or does not fit."""

    exit_code = 65


class MissingInput(ImaxError):
    """A model, checkpoint or file that the request names is not there."""

    exit_code = 66


class ClusterUnavailable(ImaxError):
    """No Ray cluster, or not one that has what the request needs."""

    exit_code = 69
    retryable = True


class SlowLink(ClusterUnavailable):
    """The link between a gang's hosts carries less than its plan needs; on other hosts the request may do."""


class GangLost(ImaxError):
    """A rank died or hung; the poster can resume from its last checkpoint."""

    exit_code = 70
    retryable = True


class OutOfMemory(ImaxError):
    """A rank's device or host memory did not suffice; the same request on the same ranks fails again."""

    exit_code = 71


class CannotWrite(ImaxError):
    """The output cannot be written: disk full, read-only, not a folder."""

    exit_code = 73


class StoreUnavailable(CannotWrite):
    """The database that keeps a batch's jobs does not answer, or refuses; a running batch waits for it."""

    exit_code = 69
    retryable = True


class NotDelivered(ImaxError):
    """The object store did not take a finished poster, which lies in its folder."""

    exit_code = 69
    retryable = True


class FolderGone(ImaxError):
    """The folder of a running batch was moved or removed."""

    exit_code = 73


class Preempted(ImaxError):
    """Stopped on request after a checkpoint; the same command resumes."""

    exit_code = 75
    retryable = True


class FolderBusy(ImaxError):
    """Another batch is writing into the folder; try again when it has ended."""

    exit_code = 75
    retryable = True


class PartialBatch(ImaxError):
    """Some posters of a batch failed; the others are done."""

    exit_code = 76


class NoPermission(ImaxError):
    """Reading or writing is not allowed, or a gated model was not unlocked."""

    exit_code = 77


class BadConfig(ImaxError):
    """A configuration key, value or combination of values is wrong."""

    exit_code = 78
