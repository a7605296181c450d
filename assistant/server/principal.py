"""Who asks: the tenant, the user, their groups, and what the key in hand may do.

Names of users and groups belong to a tenant; documents carry them in their access lists. In the
tenant `main` a name stands for itself as well, as `ingest --readers` writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fastapi import Request

from assistant.server.errors import ApiError

MAIN = "main"
#: What a key can be for.
SCOPES = {
    "chat": "ask, and go on in conversations of one's own",
    "search": "search the documents one may read, and open citations",
    "documents": "see which documents there are",
    "ingest": "add, replace and delete documents",
    "embed": "make embeddings",
    "moderate": "have texts judged",
    "feedback": "rate answers of one's own",
    "act": "ask for a user that the request names",
}
#: What a key is for where nothing is said.
USUAL = ("chat", "search", "documents", "embed", "moderate", "feedback")
NAME = re.compile(r"[\w.@+-]{1,120}")
USER_HEADER, GROUPS_HEADER = "x-plumbline-user", "x-plumbline-groups"


@dataclass(frozen=True, slots=True)
class Principal:
    """One who asks. `open` is the user of this computer, who needs no key and sees everything.

    `named` says that the request named the user, for a key that acts for others.
    """

    key: str
    tenant: str
    user: str
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    requests: int = 0
    tokens: int = 0
    open: bool = False
    named: bool = False

    @property
    def owner(self) -> str:
        """Whose conversations, answers and feedback these are."""
        return "local" if self.open else f"{self.tenant}/{self.user}"

    @property
    def everybody(self) -> str:
        """The name in access lists for all of the tenant."""
        return f"{self.tenant}/*"

    @property
    def readers(self) -> frozenset[str] | None:
        """The names in access lists that are this one's; None: lists are not looked at."""
        if self.open:
            return None
        own = {self.user, *self.groups}
        names = {f"{self.tenant}/{name}" for name in own} | {self.everybody}
        return frozenset(names | own if self.tenant == MAIN else names)


#: Who asks on loopback while no key is set.
LOCAL = Principal("local", MAIN, "local", scopes=frozenset(SCOPES), open=True)


def acting(principal: Principal, user: str | None, groups: str | None) -> Principal:
    """The principal as the user whom the request names, for keys that may.

    Raises:
        ApiError: the key may not, or a name is not one.
    """
    if user is None and groups is None:
        return principal
    if "act" not in principal.scopes:
        raise ApiError(
            403,
            f"This key may not name a user; make one with the scope 'act' "
            f"or leave {USER_HEADER} and {GROUPS_HEADER} out.",
        )
    named = [name.strip() for name in (groups or "").split(",") if name.strip()]
    for name in [*named, *([user] if user is not None else [])]:
        if not NAME.fullmatch(name):
            raise ApiError(
                400,
                "A name of a user or group has letters, digits and . @ + - _ only.",
                "invalid_value",
                USER_HEADER,
            )
    return replace(
        principal,
        user=user or principal.user,
        groups=frozenset(named),
        open=False,
        named=user is not None,
    )


def asks(request: Request) -> Principal:
    """Who sent this request, as the gate found out."""
    principal = request.scope["state"]["principal"]
    assert isinstance(principal, Principal)
    return principal


class Needs:
    """A dependency: the request's principal, who has one scope."""

    def __init__(self, scope: str) -> None:
        assert scope in SCOPES
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """The principal.

        Raises:
            ApiError: the key is not for this.
        """
        return self.of(asks(request))

    def of(self, principal: Principal) -> Principal:
        """The principal, where it has the scope.

        Raises:
            ApiError: it has not.
        """
        if self.scope not in principal.scopes:
            raise ApiError(403, f"This key is not for this; it needs the scope {self.scope!r}.")
        return principal
