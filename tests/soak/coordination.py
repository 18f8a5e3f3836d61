"""The coordinator of a soak and the people who sign its directory: everything they do is a command."""

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.platform.keyfiles import descriptor_path
from node.settings import load_settings
from tests.ports import free_port
from tests.soak.commands import Commands
from tests.soak.process import SoakProcess, pause
from tests.soak.site import COORDINATOR_ID, Site

#: Two of them are needed for the root, and for the directory.
_PEOPLE: Final = ("ada", "ben", "cyd")
_SIGNING: Final = ("ada", "cyd")
#: As often a change is begun anew when a database was away.
_TRIES: Final = 20
_VERSION: Final = re.compile(r"^Version (\d+) is published", re.MULTILINE)


@dataclass(slots=True)
class Coordination:
    """The coordinator, and who signs what it publishes; one change of the directory at a time."""

    site: Site
    commands: Commands
    coordinator: SoakProcess
    fingerprint: str
    version: int = 0
    #: How many changes were begun anew, since the coordinator's database was away.
    begun_anew: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    async def set_up(cls, site: Site, commands: Commands) -> "Coordination":
        """Set the coordinator up, begin the directory with every node, and publish it; nothing is started."""
        home = site.folder / COORDINATOR_ID
        home.mkdir(mode=0o700)
        file, (called, listens) = home / "hotline.toml", site.coordinator_ports
        tls = site.authority.issue(COORDINATOR_ID).settings()
        settings = {**tls, "peer_tls_ca_file": site.authority.file, "timestamp_every_s": 20, "database_pool_size": 3}
        init = commands.run(
            file,
            *("init", "--role", "coordinator", "--node-id", COORDINATOR_ID, "--data-dir", str(home)),
            *("--base-url", f"https://localhost:{called}", "--listen-peer", f"127.0.0.1:{listens}"),
            *("--listen-api", f"127.0.0.1:{free_port()}", "--database-url", site.coordinator_database),
            *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")),
        )
        people = [home / f"{name}.key" for name in _PEOPLE]
        # These need nothing of one another.
        await asyncio.gather(init, *(commands.run(None, "directory", "new-key", str(key)) for key in people))
        public = [f"{key}.pub" for key in people]
        online = home / "directory-keys"
        begun = await commands.run(
            None,
            *("directory", "init", str(home / "first"), "--root-key", *public, "--root-threshold", "2"),
            *("--directory-key", *public, "--directory-threshold", "2"),
            *("--snapshot-key", str(online / "snapshot.key.pub")),
            *("--timestamp-key", str(online / "timestamp.key.pub")),
        )
        process = SoakProcess(file=file, settings=load_settings(file, {}))
        made = cls(site, commands, process, begun.split()[-1])
        members = [str(descriptor_path(node.settings)) for node in site.world.nodes]
        desk, first = str(descriptor_path(process.settings)), home / "first"
        mandated = ("--mandated", site.nodes[0].id, "--desk", desk)
        await commands.run(None, "directory", "propose", str(first), "--member", *members, *mandated)
        assert await made._sign_and_publish(first)
        return made

    async def join(self, file: Path) -> None:
        """Let a node join over TLS, by the pinned root; the coordinator has to serve."""
        url = self.coordinator.settings.base_url
        await self.commands.run(file, "join", url, "--root-fingerprint", self.fingerprint)

    async def change(self, *words: str) -> None:
        """Propose a change on what is published, sign it and publish it; begin anew when the database was away."""
        async with self.lock:
            for _ in range(_TRIES):
                if await self._change(words):
                    return
                self.begun_anew += 1
                await pause(None, 0.5)
        raise AssertionError(f"the change {' '.join(words)} could not be published")

    async def _change(self, words: tuple[str, ...]) -> bool:
        folder = self.coordinator.settings.data_dir / f"change-{self.commands.counted}"
        published, proposal = folder / "published", folder / "proposal"
        folder.mkdir(mode=0o700)
        done = await self.commands.attempt(self.coordinator.file, "directory", "export", str(published))
        if done.database_failed:
            return False
        assert done.status == 0, done.text
        await self.commands.run(None, "directory", "propose", str(proposal), "--published", str(published), *words)
        return await self._sign_and_publish(proposal)

    async def _sign_and_publish(self, proposal: Path) -> bool:
        for name in _SIGNING:
            key = self.coordinator.settings.data_dir / f"{name}.key"
            await self.commands.run(None, "directory", "sign", str(proposal), "--key", str(key))
        done = await self.commands.attempt(self.coordinator.file, "directory", "publish", str(proposal))
        if done.database_failed:
            return False
        found = _VERSION.search(done.text)
        assert found is not None, done.text
        self.version = int(found[1])
        return True
