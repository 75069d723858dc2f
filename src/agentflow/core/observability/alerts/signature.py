"""How a webhook is signed, and how whoever gets one finds out that it is genuine. Pure.

    headers = signed(secret, "alerts-1", body, now=time.time())
    headers ──▶ {"webhook-id": "alerts-1", "webhook-timestamp": "1700000000", "webhook-signature": "v1,6cSS…="}
    is_genuine(secret, headers, body, now=time.time())  ──▶  True

It is HMAC-SHA256 over `id.timestamp.body`, as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com), for
which there are libraries in most languages. A secret that begins with `whsec_` is base64 from there; any other is taken
as it is.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256

from agentflow.errors import ConfigurationError

__all__ = ["is_genuine", "signed"]

_PREFIX = "whsec_"


def signed(secret: str, message_id: str, body: bytes, *, now: float) -> dict[str, str]:
    """The headers that go with a body. `now` is wall time."""
    moment = str(int(now))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{_signature(secret, message_id, moment, body)}",
    }


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes, *, now: float, tolerance: float = 300.0) -> bool:
    """Whether whoever knows the secret has sent exactly this, within `tolerance` seconds of now.

    Header names are taken in lower case. Several signatures may stand side by side, while a secret is being replaced.
    What has come before can come again: whoever minds remembers `webhook-id`.
    """
    found = {name.lower(): value for name, value in headers.items()}
    moment, message_id = found.get("webhook-timestamp", ""), found.get("webhook-id", "")
    if not (moment.isascii() and moment.isdigit() and len(moment) <= 15) or abs(now - int(moment)) > tolerance:
        return False
    expected = f"v1,{_signature(secret, message_id, moment, body)}".encode()
    given = found.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected, each.encode("utf-8", "replace")) for each in given)


def _signature(secret: str, message_id: str, moment: str, body: bytes) -> str:
    content = f"{message_id}.{moment}.".encode("utf-8", "replace") + body
    return base64.b64encode(hmac.digest(_key(secret), content, sha256)).decode("ascii")


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ConfigurationError(f"a webhook's secret that begins with {_PREFIX} goes on in base64") from None
