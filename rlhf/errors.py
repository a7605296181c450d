"""Errors of the rlhf package.

RlhfError
├── StoreError               the preference log cannot be used
│   ├── StoreBusy            another process holds the writer's lock (retryable)
│   ├── StoreTooNew          it was written by a newer version of plumbline
│   └── SecretMismatch       the secret file is not the one its users were hashed with
├── RecordError              one record cannot be taken in
│   ├── BadRecord            a turn or a feedback contradicts itself
│   ├── ConflictingRecord    its id is taken by another content
│   └── UnknownTurn          feedback on a turn that is not in the log, or is someone else's
├── ExportError              an unknown export format, or a file that cannot be written
├── ImportRefused            an unknown import format, no licence note, or an unreadable file
├── RewardError              there is no reward model, or a term of the reward cannot be used
├── RegistryError            the registry of candidates cannot do what was asked
│   ├── RegistryBusy         another process is changing it (retryable)
│   ├── UnknownCandidate     no candidate of that id
│   ├── CandidateBroken      a file of it is missing or changed, or its manifest is
│   └── NotPromotable        a gate did not pass, or was measured against another policy
└── TrainingError            a training file is missing or malformed, or does not fit the rest
    ├── Diverged             a run was stopped because it no longer learns (NaN, KL, entropy)
    └── Cancelled            somebody asked a run to end; what was done is kept
"""

from __future__ import annotations


class RlhfError(Exception):
    """Anything learning from feedback could not do; the message says what and the remedy."""

    retryable = False


class StoreError(RlhfError):
    """The preference log cannot be used."""


class StoreBusy(StoreError):
    """Another process is writing; try again when it has finished."""

    retryable = True


class StoreTooNew(StoreError):
    """The preference log was written by a newer version of plumbline."""


class SecretMismatch(StoreError):
    """The secret file is missing or not the one this log's users were hashed with."""


class RecordError(RlhfError):
    """One record cannot be taken in; nothing of it was written."""


class BadRecord(RecordError):
    """A turn or a feedback contradicts itself."""


class ConflictingRecord(RecordError):
    """The id is in the log already, with another content."""


class UnknownTurn(RecordError):
    """Feedback on a turn that is not in the log, was deleted, or belongs to someone else."""


class ExportError(RlhfError):
    """An unknown export format, or a file that cannot be written."""


class ImportRefused(RlhfError):
    """An unknown import format, a data set without a licence note, or a file no one can read."""


class RewardError(RlhfError):
    """There is no reward model, it tells nothing apart, or a term of the reward is not finite."""


class TrainingError(RlhfError):
    """A training file is missing or malformed, or does not fit the rest."""


class Diverged(TrainingError):
    """A run was stopped because it went astray; the policy that is live was not touched."""


class Cancelled(TrainingError):
    """Somebody asked a run to end; what was done is kept, and it can be resumed."""


class RegistryError(RlhfError):
    """The registry of candidates cannot do what was asked; what answers has not changed."""


class RegistryBusy(RegistryError):
    """Another process is changing the registry; try again when it has finished."""

    retryable = True


class UnknownCandidate(RegistryError):
    """No candidate of that id."""


class CandidateBroken(RegistryError):
    """A file of a candidate is missing or not what its manifest says, or the manifest is not."""


class NotPromotable(RegistryError):
    """A gate did not pass, was not measured, or was measured against another policy."""
