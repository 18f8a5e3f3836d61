"""What looking up a name can come to: two facts about the name, addresses, or no fact at all. Pure types."""

from dataclasses import dataclass

from geo.address import IPAddress


@dataclass(frozen=True, slots=True)
class Answer:
    """The name has addresses; `chain` are the alias targets in order.

    `partial` is the reason why the other address type could not be asked, when it could not.
    """

    addresses: tuple[IPAddress, ...]
    chain: tuple[str, ...]
    ttl_s: int
    server: str
    partial: str | None = None


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """Fact: the name does not exist (NXDOMAIN for both types)."""

    chain: tuple[str, ...]
    ttl_s: int
    server: str


@dataclass(frozen=True, slots=True)
class NoAddress:
    """Fact: the name has no address; `reason` is `no-data`, `cname-loop` or `cname-too-long`."""

    chain: tuple[str, ...]
    ttl_s: int
    server: str
    reason: str


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """No fact: try again later; `reason` is a token (`timeout`, `servfail`, `refused`, `lame`, ...)."""

    reason: str
    server: str


Outcome = Answer | NoSuchName | NoAddress | TemporaryFailure
