"""What of OpenAI's fields we take, in words of a Request; everything else is refused with its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile

from imax_dist.jobs.manifest.files import json_value
from imax_dist.jobs.manifest.table import field_kinds
from imax_dist.service.refusals import Refused

MOST_PICTURES = 10
MOST_LOOKS = 3
LONGEST_USER = 256
FORMATS = {"png": "poster.png", "jpeg": "poster.jpg"}
ONLY: dict[str, tuple[Any, str]] = {
    "quality": (("auto", "standard"), "give preset or steps instead"),
    "background": (("auto", "opaque"), "posters have no transparent parts"),
    "moderation": (("auto",), "nothing is moderated here"),
    "style": ((), "say it in the prompt"),
    "mask": ((), "parts of a picture cannot be edited here"),
    "input_fidelity": ((), "give strength or method instead"),
    "output_compression": ((), "ask for output in a job of /v1/images/jobs"),
}
"""Values that say what is done anyway, and what to do instead of any other."""


@dataclass(frozen=True)
class ImageCall:
    """A request of OpenAI's as the fields of a job, and how it is to be answered."""

    fields: dict[str, Any]
    stream: bool
    partial_images: int
    output_format: str
    url: bool

    @property
    def file(self) -> str:
        return FORMATS[self.output_format]


def read_image_call(body: dict[str, Any]) -> ImageCall:
    """Raises Refused (400) for what is not done here."""
    fields = {name: value for name, value in body.items() if value is not None}
    for name, (known, instead) in ONLY.items():
        if name in fields and fields.pop(name) not in known:
            only = f"may be {' or '.join(known)}; " if known else "is not supported; "
            raise _bad(f"{name} {only}{instead}")
    stream, url = fields.pop("stream", False), fields.pop("response_format", "b64_json")
    looks, picture = fields.pop("partial_images", 0), fields.pop("output_format", "png")
    user = fields.pop("user", "")
    if not isinstance(stream, bool):
        raise _bad("stream must be true or false")
    if url not in ("b64_json", "url"):
        raise _bad("response_format must be b64_json or url")
    if isinstance(looks, bool) or not isinstance(looks, int) or not 0 <= looks <= MOST_LOOKS:
        raise _bad(f"partial_images must be 0 to {MOST_LOOKS}")
    if looks and not stream:
        raise _bad("partial_images needs stream")
    if not isinstance(picture, str) or picture not in FORMATS:
        raise _bad(f"output_format must be {' or '.join(FORMATS)}")
    if not isinstance(user, str) or len(user) > LONGEST_USER:
        raise _bad(f"user must be text of up to {LONGEST_USER} characters")
    return ImageCall(_job_fields(fields, picture), stream, looks, picture, url == "url" and not stream)


def _job_fields(fields: dict[str, Any], picture: str) -> dict[str, Any]:
    count = fields.pop("n", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_PICTURES:
        raise _bad(f"n must be 1 to {MOST_PICTURES}")
    if "count" in fields or "approval" in fields:
        raise _bad("count and approval are for /v1/images/jobs and /v1/batches; n says how many here")
    if fields.get("size") == "auto":
        del fields["size"]
    if picture == "jpeg":
        output = fields.get("output") or {}
        fields["output"] = {**output, "jpg": output.get("jpg") or {}} if isinstance(output, dict) else output
    return {**fields, "count": count}


def form_fields(form: FormData) -> tuple[dict[str, Any], UploadFile]:
    """The fields of a form as JSON would have them, and its one picture. Raises Refused."""
    fields: dict[str, Any] = {}
    pictures: list[UploadFile] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in ("image", "image[]"):
                raise _bad(f"{name[:80]}: the only file that is read is image")
            pictures.append(value)
        elif name in fields:
            raise _bad(f"{name[:80]} is given twice")
        else:
            fields[name] = _typed(name, value)
    if len(pictures) != 1:
        raise _bad("image: one picture is needed")
    return fields, pictures[0]


def _typed(name: str, text: str) -> Any:
    """Text of a form as the number, switch or object that the field wants."""
    plain = field_kinds().get(name) is str or name in ("prompt", "size", "user")
    if plain:
        return text
    try:
        return json_value(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:
        raise _bad(f"{name[:80]}: {error}") from error


def _bad(message: str) -> Refused:
    return Refused(400, message, code="bad_request")
