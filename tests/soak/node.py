"""One node of the soak: its process, the key that opens its API, and the way to its tables."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from node.hotline.store.apikeys import ApiKeys
from node.platform.apikeys import Role, new_api_key
from node.platform.database import DATABASE_ERRORS, Database
from node.setting_files import write_settings
from tests.soak.process import SoakProcess
from tests.world import TestNode, file_values

#: What `hotline join` writes.
_JOINED: Final = frozenset({"directory_root", "directory_sources"})

#: So soon it has to be due that a node tells again who has an item, if that is waited for: a second refusal waits four
#: minutes, a third sixteen.
AGAIN_S: Final = 300

#: What waits: items on their way, records to the other nodes without a receipt, records that came and are not applied,
#: disputes that the desk does not have yet, what is told again soon, and a directory that is not the newest. What a
#: backup held unapplied of a member that was left out waits until that says what it holds; the hostile one never does.
_WAITING: Final = (
    "SELECT (SELECT count(*) FROM location_queue) AS queued, "
    "(SELECT count(*) FROM items WHERE state IN ('locating', 'ready', 'leaving', 'undeliverable')) AS items, "
    "(SELECT count(*) FROM relocations) AS to_move, "
    "(SELECT coalesce(sum(s.next_index - c.acked_size), 0)::int FROM outbound_streams s "
    "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = ANY($1)) AS to_send, "
    "(SELECT coalesce(sum(s.size - c.applied), 0)::int FROM inbound_streams s "
    "JOIN apply_cursors c ON c.stream = s.id WHERE NOT EXISTS (SELECT 1 FROM stream_differences f "
    "WHERE f.peer = s.peer AND f.kind = 'not-asked' AND f.mended_at IS NULL)) AS to_apply, "
    "(SELECT count(*) FROM disputes WHERE followed_at IS NULL AND handed_in_at IS NULL) AS to_hand_in, "
    "(SELECT count(*) FROM outbox_refusals WHERE again_at < now() + make_interval(secs => $3)) AS to_tell_again, "
    "(SELECT greatest($2 - coalesce(max(version), 0), 0)::int FROM directory_versions) AS directory"
)


@dataclass(slots=True, kw_only=True)
class SoakNode(SoakProcess):
    """A node's files, its process, and what was seen of it."""

    node: TestNode
    db: Database
    key: str

    @classmethod
    async def prepare(cls, node: TestNode) -> "SoakNode":
        """Write the node's settings file, as before it joins, and make an API key for the soak."""
        path = node.settings.data_dir / "hotline.toml"
        values = file_values(node.settings)
        write_settings(path, {name: value for name, value in values.items() if name not in _JOINED})
        db = Database(node.settings.database_url, pool_size=2)
        key = new_api_key()
        await ApiKeys(db).add(key, "soak", frozenset({Role.ADMIN, Role.INTAKE}), datetime.now(UTC))
        return cls(node=node, file=path, settings=node.settings, db=db, key=key.text)

    @property
    def country(self) -> str:
        """The country it is competent for."""
        return self.settings.countries[0]

    @property
    def api(self) -> str:
        """Where its API is."""
        return f"http://{self.settings.listen_api}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What opens its API."""
        return {"Authorization": f"Bearer {self.key}"}

    async def waiting(self, others: list[str], version: int = 0) -> dict[str, int]:
        """Return what still waits at it that concerns the `others`, by where it waits."""
        self.look()
        try:
            async with asyncio.timeout(10), self.db.transaction("test.over") as tx:
                row = await tx.row(_WAITING, others, version, AGAIN_S)
        except (*DATABASE_ERRORS, TimeoutError):
            return {"database": 1}
        return {name: count for name, count in dict(row or {}).items() if count}
