"""Ask a vision-language model behind any OpenAI-compatible endpoint (``/chat/completions``)."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imax_dist.errors import BadConfig, NoPermission, Preempted

URL, MODEL, KEY = "IMAX_VOTE_URL", "IMAX_VOTE_MODEL", "IMAX_VOTE_KEY"
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_WAIT = 60.0


class EndpointFailed(Preempted):
    """The endpoint does not answer, or not in a form that can be read."""


@dataclass(frozen=True)
class Endpoint:
    """Base URL (up to and with ``/v1``), model and key; ``wait`` is the pause before a second try."""

    url: str
    model: str
    key: str = ""
    tries: int = 4
    wait: float = 1.0
    timeout: float = 120.0
    pause: Callable[[float], None] = time.sleep

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Endpoint:
        """Raises BadConfig where the variables that say which endpoint are not set."""
        missing = [name for name in (URL, MODEL) if not environment.get(name)]
        if missing:
            raise BadConfig(
                f"the vote needs {' and '.join(missing)} (and {KEY} if the endpoint wants a key) in the "
                "environment; or use --judge testbed"
            )
        url = environment[URL].rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise BadConfig(f"{URL} is {url!r}; write an address like https://host/v1")
        return cls(url, environment[MODEL], environment.get(KEY, ""))

    def ask(self, text: str, images: Sequence[bytes]) -> str:
        """The model's answer to a question about PNG images.

        Busy endpoints are asked again, at their own pace. Raises EndpointFailed, or NoPermission.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        for image in images:
            data = "data:image/png;base64," + base64.b64encode(image).decode()
            content.append({"type": "image_url", "image_url": {"url": data}})
        message = {"model": self.model, "messages": [{"role": "user", "content": content}], "temperature": 0}
        body = json.dumps(message).encode()
        trouble = ""
        for attempt in range(self.tries):
            if attempt:
                self.pause(min(_LONGEST_WAIT, self.wait * 4 ** (attempt - 1)))
            try:
                return _answer_in(self._post(body))
            except urllib.error.HTTPError as error:
                trouble = f"status {error.code}"
                if error.code in (401, 403):
                    raise NoPermission(f"{self.url} refused the key in {KEY} ({trouble})") from error
                if error.code not in _BUSY:
                    break
                self._as_asked(error)
            except (OSError, ValueError) as error:
                trouble = str(error) or type(error).__name__
        raise EndpointFailed(f"{self.url} gave no usable answer: {trouble}")

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            read: bytes = answer.read()
        return read

    def _as_asked(self, error: urllib.error.HTTPError) -> None:
        delay = error.headers.get("Retry-After", "")
        if delay.isdigit():
            self.pause(min(_LONGEST_WAIT, float(delay)))


def _answer_in(body: bytes) -> str:
    """The text of an answer. Raises ValueError if it is none."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError("the answer has no choices[0].message.content") from error
    if not isinstance(text, str):
        raise ValueError("the answer's content is not text")
    return text
