"""One JSON request to the endpoint of a guard, within a deadline.

The request goes to `guard_url` and nowhere else: proxies, keys and cookies from the environment
are ignored, redirects are not followed. The key is in the Authorization header and in no message.
"""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from safety.config import SafetySettings
from safety.errors import ModelUnusable, ModeratorUnavailable
from safety.moderator._plugin import late

#: Bytes of the longest answer that is read, and tries where the endpoint is busy.
LONGEST, TRIES = 1 << 20, 3
BUSY = (408, 425, 429, 500, 502, 503, 504)
#: First pause before another try, seconds; doubled each time, unless the endpoint names one.
PAUSE = 0.25
REMEDY = {
    400: "check safety.guard_model and safety.guard_family against the endpoint",
    401: "check safety.guard_key (PLUMBLINE_SAFETY__GUARD_KEY)",
    403: "check what safety.guard_key is allowed to use",
    404: "check safety.guard_model and safety.guard_url (it usually ends in /v1)",
    413: "the endpoint takes shorter texts only",
    429: "wait, or raise the endpoint's limits",
}


class Endpoint:
    """An endpoint, by the settings. Safe to use from several threads.

    Raises:
        ModelUnusable: `guard_url` is missing or no http(s) address.
    """

    def __init__(self, settings: SafetySettings) -> None:
        url = settings.guard_url.rstrip("/")
        try:
            address = urlsplit(url)
            fine = address.scheme in ("http", "https") and address.hostname and address.port != 0
        except ValueError:
            fine = False
        if not fine:
            raise ModelUnusable(
                f"safety.guard_url={url!r} is no http(s) address; give the base URL of an "
                "OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1"
            )
        if address.username or address.password or address.query or address.fragment:
            raise ModelUnusable(
                "safety.guard_url must hold no user, password or query; use safety.guard_key"
            )
        self._url = url
        self._settings = settings
        self.place = f"{address.hostname}:{address.port or ''}".rstrip(":")
        key = settings.guard_key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, trust_env=False, follow_redirects=False)

    def post(self, path: str, body: dict[str, Any], deadline: float) -> Any:
        """Send `body` and return the answer's JSON.

        Raises:
            ModeratorUnavailable: unreachable, refused, too slow, or no JSON.
        """
        for attempt in range(TRIES):
            status, data, told = self._once(path, body, deadline)
            if status == 200:
                break
            pause = PAUSE * 2**attempt if told is None else told
            again = attempt + 1 < TRIES and time.monotonic() + pause < deadline
            if status not in BUSY or not again:
                remedy = REMEDY.get(status, "look at the endpoint's own log")
                raise ModeratorUnavailable(
                    f"the guard endpoint {self.place} answered HTTP {status}; {remedy}"
                )
            time.sleep(pause)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.wrong("no JSON") from error

    def wrong(self, what: str) -> ModeratorUnavailable:
        """The error of an answer that is not of the API's form."""
        return ModeratorUnavailable(
            f"the guard endpoint {self.place} answered {what}; check safety.guard_url and "
            "safety.guard_model"
        )

    def _once(
        self, path: str, body: dict[str, Any], deadline: float
    ) -> tuple[int, bytes, float | None]:
        """Status, body, and the pause in seconds that the endpoint asks for."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise late(self.place, self._settings)
        data = bytearray()
        try:
            with self._client.stream("POST", f"{self._url}{path}", json=body, timeout=left) as got:
                # the client's own limit is per read; a slow drip would outlast it
                for piece in got.iter_bytes():
                    data += piece
                    if time.monotonic() >= deadline:
                        raise late(self.place, self._settings)
                    if len(data) > LONGEST:
                        raise self.wrong(f"more than {LONGEST} bytes")
        except httpx.TimeoutException as error:
            raise late(self.place, self._settings) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModeratorUnavailable(
                f"the guard endpoint {self.place} cannot be reached ({type(error).__name__}); "
                "check that it runs and safety.guard_url"
            ) from error
        return got.status_code, bytes(data), _told(got.headers)


def _told(headers: httpx.Headers) -> float | None:
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None
