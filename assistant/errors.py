"""Errors of the assistant package.

AssistantError
├── ConfigError              a setting is unknown, contradictory or out of range
├── ConversationNotFound     no such conversation, or it belongs to someone else
├── TurnNotFound             no such turn in that conversation
├── FactNotFound             no such fact of that user
├── TurnStopped              the caller ended the turn before its answer was whole
├── PolicyError              the policy could not answer
│   ├── PolicyUnavailable    endpoint unreachable, overloaded or timed out (retryable)
│   ├── PolicyRefused        endpoint rejected the request: key, model name, size
│   └── ModelNotFound        a local checkpoint is missing or not loadable
├── BackupError              a copy of the data cannot be made, is damaged, or has no place
├── BackendMissing           a policy's name is unknown or its library is not installed
└── TrainerError             a run, a candidate or a pick was refused; nothing was changed
"""

from __future__ import annotations


class AssistantError(Exception):
    """Anything the assistant could not do; the message says what, the value and the remedy."""

    retryable = False


class BackupError(AssistantError):
    """A copy of the data cannot be made, is damaged, or has no place to go."""


class ConfigError(AssistantError):
    """A setting is unknown, contradictory or out of range."""


class ConversationNotFound(AssistantError):
    """No such conversation, or it belongs to someone else."""


class TurnNotFound(AssistantError):
    """No such turn in that conversation."""


class FactNotFound(AssistantError):
    """No such fact, or it belongs to someone else."""


class TurnStopped(AssistantError):
    """The caller ended the turn before its answer was whole; nothing of it was stored."""


class PolicyError(AssistantError):
    """The policy could not answer."""


class PolicyUnavailable(PolicyError):
    """The policy's endpoint is unreachable, overloaded, or did not answer in time."""

    retryable = True


class PolicyRefused(PolicyError):
    """The policy's endpoint rejected the request: key, model name or size."""


class ModelNotFound(PolicyError):
    """A local checkpoint is missing or cannot be loaded."""


class BackendMissing(AssistantError):
    """A policy's name is unknown, or the library it needs is not installed."""


class TrainerError(AssistantError):
    """A verb was refused or failed; nothing was changed.

    `why` is a key: "busy" (a run or another process is at work), "gone" (no such run, candidate
    or pair), "gates" (not passed, or measured against another policy), "broken" (files are not
    what the manifest says), "nothing" (nobody answered before), "obstacle" (see `Trainer.standing`)
    or "disk". The message says what, the value and the remedy.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why
