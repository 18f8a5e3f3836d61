"""Calls of the node's store, drawn by a seed; what they answer is for others to compare."""

import random
from datetime import datetime, timedelta
from uuid import UUID

from node.hotline.domain.comparison import Direction
from node.hotline.store import (
    contacts,
    custody,
    directories,
    heads,
    inbound,
    intake,
    items,
    judged,
    outbound,
    pulls,
    waiting,
)
from node.hotline.store.intake import CaseRow, ItemRow, Received
from node.platform.database import Transaction
from node.platform.membership import Seen
from node.platform.nonces import forget_nonces, remember_nonce
from protocol.merkle import Edge
from tests.simulation.twins import NOW, PEERS, Step, plain

_STATES = ("locating", "ready", "waiting", "undeliverable", "refused", "sent", "leaving", "transferred", "kept")


class Calls:
    """Draws calls of the store, with few different keys so that they meet."""

    def __init__(self, seed: int) -> None:
        """Draw the same calls for the same seed."""
        self.rng = random.Random(seed)

    def _id(self, kind: int) -> UUID:
        return UUID(int=(kind << 64) + self.rng.randrange(8))

    def _bytes(self, count: int = 4) -> bytes:
        return self.rng.randbytes(count)

    def _now(self) -> datetime:
        return NOW + timedelta(seconds=self.rng.randrange(100))

    def draw(self) -> tuple[str, Step]:
        """Return a call and what it is named for."""
        steps = [name for name in dir(self) if name.startswith("do_")]
        name = self.rng.choice(steps)
        return name, getattr(self, name)()

    def do_append(self) -> Step:
        peers, count = self.rng.sample(PEERS, self.rng.randint(1, 2)), self.rng.randint(1, 3)
        now, leaf, ids = self._now(), self._bytes(), [self._id(1) for _ in range(3)]

        async def step(tx: Transaction) -> object:
            heads = await outbound.lock_streams(tx, peers)
            for head in heads.values():
                rows = [
                    outbound.OutboxRow(head.next_index + at, ids[at], ids[at], "report", leaf, leaf * 3)
                    for at in range(count)
                ]
                await outbound.append(tx, head, rows, now)
            return heads

        return step

    def do_read_out(self) -> Step:
        peer, stream, first, size = self.rng.choice(PEERS), self.rng.randint(1, 2), self.rng.randrange(5), 30

        async def step(tx: Transaction) -> object:
            return [
                await outbound.cursor(tx, peer),
                await outbound.peers_with_backlog(tx),
                await outbound.read(tx, stream, first, 3, size),
                await outbound.leaf_hashes(tx, stream, 4, first=first),
                await outbound.receipt_covering(tx, stream, first),
                await outbound.stream_of(tx, peer, 1),
                await contacts.contacts(tx, [peer]),
                await contacts.contact(tx, "unknown.example"),
            ]

        return step

    def do_receipt(self) -> Step:
        stream, size, note, now = self.rng.randint(1, 2), self.rng.randint(1, 4), self._bytes(), self._now()
        edge = Edge.EMPTY.extend([bytes(32)] * size)

        async def step(tx: Transaction) -> object:
            await outbound.store_receipt(tx, stream, size, note, edge, now)
            await outbound.note_outcome(tx, stream, size)
            await custody.receipted(tx, stream, size, now)
            return None

        return step

    def do_refuse(self) -> Step:
        stream, now = self.rng.randint(1, 2), self._now()
        refusals = [(idx, "not-competent", "no") for idx in self.rng.sample(range(5), 2)]

        async def step(tx: Transaction) -> object:
            await outbound.refuse(tx, stream, refusals, now)
            await custody.returned(tx, stream, [(idx, code) for idx, code, _ in refusals], now)
            return None

        return step

    def do_batch(self) -> Step:
        peer, count, now, raw = self.rng.choice(PEERS), self.rng.randint(1, 3), self._now(), self._bytes()

        async def step(tx: Transaction) -> object:
            await inbound.create_stream(tx, peer, 1)
            head = await inbound.lock_stream(tx, peer, 1)
            assert head is not None
            edge = head.edge.extend([bytes(32)] * count)
            rows = [(head.edge.size + at, bytes(32), raw) for at in range(count)]
            await inbound.store_batch(tx, head, edge, rows, raw, now)
            return head

        return step

    def do_wait(self) -> Step:
        peer, now, stream, idx = self.rng.choice(PEERS), self._now(), self.rng.randint(1, 2), self.rng.randrange(5)
        item, asked, left_out = self._id(1), [*self.rng.sample(PEERS, 1)], [*self.rng.sample(PEERS, 1)]

        async def step(tx: Transaction) -> object:
            await heads.leave_out(tx, asked, [one for one in left_out if one not in asked], now)
            before = await waiting.standing(tx, peer, [item], now)
            await waiting.over(tx, stream, [idx])
            await waiting.put(tx, stream, [(idx, item)])
            due = await waiting.lock_due(tx, now), await waiting.lock_stream(tx, stream, idx), await waiting.streams(tx)
            found = [await waiting.read(tx, number, 3) for number in (1, 2)]
            after = await waiting.standing(tx, peer, [item], now)
            later = await waiting.lock_due(tx, now + waiting.WAITS_MAX * 2)
            return before, due, found, after, later, sorted(await waiting.indices(tx, stream, 0, idx + 1))

        return step

    def do_pull(self) -> Step:
        peer, stream, size, epoch = self.rng.choice(PEERS), self.rng.randint(1, 2), self.rng.randint(1, 4), 1

        async def step(tx: Transaction) -> object:
            head = await pulls.head(tx, peer)
            await pulls.begin(tx, peer, epoch)
            owed = await pulls.owed(tx, peer)
            given = [one for one in owed if (one[0], one[2]) == (stream, size)]
            await pulls.brought(tx, stream, size, given[0][3] if given else b"another")
            return head, owed, await pulls.owed(tx, peer)

        return step

    def do_judge(self) -> Step:
        peer, direction, now, note = (
            self.rng.choice(PEERS),
            self.rng.choice(list(Direction)),
            self._now(),
            self._bytes(),
        )
        stream, size, windows = self.rng.randint(1, 2), self.rng.randint(1, 4), str(self.rng.randrange(2))

        async def step(tx: Transaction) -> object:
            known = await judged.lock(tx, peer, direction)
            await judged.keep(tx, peer, direction, windows)
            receipts = await judged.read(tx, peer, direction, now - timedelta(seconds=5), (stream, 1), 2)
            await judged.mark(tx, direction, receipts)
            await judged.send_again(tx, stream)
            await judged.fetch_again(tx, stream)
            if windows == "1":
                await inbound.give_anew(tx, stream, size, note, now)
            await pulls.begin(tx, peer, 1)
            return [
                known,
                receipts,
                await judged.peers(tx),
                await inbound.receipt_covering(tx, stream, 0),
                await outbound.receipt_at(tx, peer, 1, size),
                await pulls.head(tx, peer),
                await pulls.owed(tx, peer),
            ]

        return step

    def do_read_in(self) -> Step:
        peer, stream, idx = self.rng.choice(PEERS), self.rng.randint(1, 2), self.rng.randrange(5)

        async def step(tx: Transaction) -> object:
            return [
                await inbound.held_size(tx, peer, 1),
                await inbound.leaf_hashes(tx, stream, idx, idx + 3),
                await inbound.receipt_for(tx, peer, 1, idx),
                await inbound.newest_receipt(tx, peer),
                await inbound.read(tx, stream, idx, 2),
                await inbound.batch_covering(tx, stream, idx + 1),
            ]

        return step

    def do_nonce(self) -> Step:
        nonce, now = str(self.rng.randrange(5)), self._now()

        async def step(tx: Transaction) -> object:
            fresh = await remember_nonce(tx, "key", nonce, now)
            return fresh, await forget_nonces(tx, NOW + timedelta(seconds=10))

        return step

    def do_equivocation(self) -> Step:
        proof, size, raw, now = self._id(7), self.rng.randint(1, 3), self._bytes(), self._now()
        ending = self.rng.choice([None, raw])

        async def step(tx: Transaction) -> object:
            await inbound.keep_equivocation(tx, proof, PEERS[0], "origin", size, raw, raw, ending, now)
            return None

        return step

    def do_contact(self) -> Step:
        peer, now, which = self.rng.choice(PEERS), self._now(), self.rng.randrange(3)
        of_keys = self.rng.choice([True, False])

        async def step(tx: Transaction) -> object:
            if which == 0:
                await contacts.heard_from(tx, peer, now)
            elif which == 1:
                await contacts.reached(tx, peer, now)
            else:
                await contacts.failed(tx, peer, "timeout", now + timedelta(seconds=5), None, of_keys=of_keys)
            return await contacts.contact(tx, peer)

        return step

    def do_directory(self) -> Step:
        version, root = self.rng.randint(1, 4), self.rng.randint(1, 2)
        seen = Seen(version, bytes([self.rng.randrange(2)]), root, b"k", version, version)

        async def step(tx: Transaction) -> object:
            await directories.check(tx, seen)
            await tx.execute(
                "INSERT INTO directory_versions (keys, version, sha256, root_version, snapshot_version, "
                "timestamp_version, first_seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                *(seen.keys, seen.version, seen.sha256, seen.root_version, seen.snapshot_version, version, NOW),
            )
            return None

        return step

    def do_take_in(self) -> Step:
        now, received = self._now(), self.rng.random() < 0.5
        cases = [self._case(self._id(2)) for _ in range(2)]
        rows = [self._item(self._id(1), case.id, received=received) for case in cases]

        async def step(tx: Transaction) -> object:
            if received:
                await intake.copy_cases(tx, cases, now)
                fresh = {case.id for case in cases}
            else:
                fresh = await intake.insert_cases(tx, cases, now)
            kept = [row for row in rows if row.case_id in fresh]
            digests = {row.url_digest: (row.id, 1) for row in kept}
            first = await intake.claim_identities(tx, digests) if digests else {}
            await intake.copy_items(tx, kept, now)
            return fresh, sorted(first.items()), await intake.submitters(tx, [case.id for case in cases])

        return step

    def _case(self, case_id: UUID) -> CaseRow:
        reference = self.rng.choice([None, "r1", "r2"])
        return CaseRow(
            case_id,
            "desk",
            reference,
            b"d",
            "public",
            NOW,
            None,
            None,
            None,
            None,
            None,
            None,
            ("visa",),
            self.rng.choice([None, b"r"]),
        )

    def _item(self, item_id: UUID, case_id: UUID, *, received: bool) -> ItemRow:
        idx = self.rng.randrange(5)
        came = Received(1, idx, PEERS[0], b"h", "NL", None, "NL", 90, ("sure",), b"e", None) if received else None
        state, digest = self.rng.choice(_STATES), bytes([self.rng.randrange(6)])
        said = self.rng.choice([None, '{"classification":"national"}'])
        return ItemRow(item_id, case_id, "page", None, b"u", None, digest, None, None, state, None, said, came)

    def do_items(self) -> Step:
        one, other, now, state = self._id(1), self._id(1), self._now(), self.rng.choice(_STATES)

        async def step(tx: Transaction) -> object:
            await items.write_routes(tx, [items.Move(one, state, "why", "NL", PEERS[0])], now)
            await items.requeue(tx, [one], now)
            locked = await items.locked_states(tx, [one, other])
            leased = await items.lease_for_location(tx, now, 60.0, 2)
            await items.postpone_location(tx, [(row.id, now) for row in leased])
            return [
                sorted(str(plain(dict(row))) for row in locked.values()),
                leased,
                [dict(row) for row in await items.lock_ready(tx, 3)],
                [dict(row) for row in await items.lock_undeliverable(tx, None, 3)],
                [dict(row) for row in await items.lock_refused(tx, ["why"], other, 3)],
                [dict(row) for row in await items.page(tx, None, one, 3)],
                await items.queue_depths(tx),
                sorted(str(dict(row)) for row in await items.counts(tx)),
                await intake.known_items(tx, [one, other]),
            ]

        return step

    def do_custody(self) -> Step:
        item, now, idx = self._id(1), self._now(), self.rng.randrange(5)
        place = self.rng.choice([None, (1, idx), (2, idx)])
        looks: list[tuple[datetime | None, list[str] | None]] = [(None, None), (now, ["NL"])]

        async def step(tx: Transaction) -> object:
            locked = await custody.lock(tx, [item])
            if not locked:
                return None
            await custody.ask(tx, item, "DE", None, now)
            leased = await custody.lease(tx, now, 60.0, 2)
            await custody.postpone(tx, [(one.id, now) for one in leased])
            chain = custody.Chain(PEERS[0], (), now)
            await custody.given(tx, item, chain, now, place=place)
            await custody.stand(tx, item, "leaving", None, now)
            stale = [await custody.stale(tx, PEERS[0], before, among, None, 5) for before, among in looks]
            return leased, await custody.chains(tx, [item]), stale

        return step
