"""Who the members are, as the coordinator itself publishes it; nobody before anything is published."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from node.clock import Clock
from node.coordinator.publisher import Publisher
from node.platform.trust import Freshness
from protocol.directory import Directory

_NOBODY: Final = Directory(1, datetime(1970, 1, 1, tzinfo=UTC), {})


@dataclass(frozen=True, slots=True)
class PublishedMembers:
    """The members of what was read last from the database."""

    publisher: Publisher
    clock: Clock

    def current(self) -> Directory:
        """Return the directory that is published."""
        published = self.publisher.published
        return _NOBODY if published is None else published.directory

    def freshness(self) -> Freshness:
        """Say how far nodes can rely on it."""
        published = self.publisher.published
        return Freshness.EXPIRED if published is None else published.use.freshness(self.clock.now())

    def hint(self, header: str | None, peer_id: str) -> None:
        """Learn nothing: no member has a newer one."""
