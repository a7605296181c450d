"""Errors of the safety package.

SafetyError
├── ModeratorUnavailable   a moderator could not judge; the guard turns this into a block
├── PolicyInvalid          the policy file does not say what it must
├── AuditBroken            the audit log's hash chain does not verify
├── ModelUnusable          a guard's model or endpoint is not set, missing, damaged or untrusted
├── AppealInvalid          no such decision or appeal, or not its text
└── BackendMissing         a moderator's name is unknown or its library is not installed
"""

from __future__ import annotations


class SafetyError(Exception):
    """Anything safety could not do; the message says what, the value and the remedy."""

    retryable = False


class ModeratorUnavailable(SafetyError):
    """A moderator could not judge; the guard turns this into a block."""

    retryable = True


class PolicyInvalid(SafetyError):
    """The policy file does not say what it must."""


class AuditBroken(SafetyError):
    """The audit log's hash chain does not verify."""


class ModelUnusable(SafetyError):
    """A guard's model or endpoint is not set, missing, damaged, or not to be trusted."""


class AppealInvalid(SafetyError):
    """There is no such decision or appeal, its text is missing, or it is another text."""


class BackendMissing(SafetyError):
    """A moderator's name is unknown, or the library it needs is not installed."""
