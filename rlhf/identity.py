"""Who a user is in the log: a keyed hash under a secret that never leaves this installation."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from pathlib import Path

from rlhf.errors import StoreError

logger = logging.getLogger(__name__)

_BYTES = 32
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII)
#: International, Chinese mobile, North American, Chinese landline: dates and amounts must stay.
_PHONE = re.compile(
    r"(?<![\w.+])(?:\+\d(?:[ ()-]{0,2}\d){6,14}|1[3-9]\d(?:[ -]?\d{4}){2}"
    r"|\(?\d{3}\)?[ -]\d{3}[ -]\d{4}|0\d{2,3}-\d{7,8})(?!\w)",
    re.ASCII,
)


def mask_contacts(text: str) -> str:
    """`text` with e-mail addresses and telephone numbers masked: the least redaction there is."""
    return _PHONE.sub("[phone]", _EMAIL.sub("[email]", text))


def keyed_hash(key: bytes, purpose: str, text: str) -> str:
    """HMAC-SHA256 (hex) of `text`; hashes for different purposes cannot be compared."""
    return hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def read_secret(path: Path) -> bytes:
    """Read the installation's secret, made at first use with mode 0600.

    Raises:
        StoreError: the file cannot be read or made, or is not a secret.
    """
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii")
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
            logger.warning("secret file was readable by others; mode set to 0600")
        key = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the secret file {path}: {error}") from error
    if len(key) != _BYTES:
        raise StoreError(f"the secret file {path} holds {len(key)} bytes, not {_BYTES}; restore it")
    return key


def _make(path: Path) -> None:
    """Write a new secret aside and link it into place, so that no one reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            logger.info("another process made the secret first")
    finally:
        aside.unlink()
