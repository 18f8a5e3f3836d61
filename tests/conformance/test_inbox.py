"""The inbox of the test member takes a new epoch of the node's stream, where the one before ended."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from node.conformance.inbox import Arrival, Inbox
from node.platform.ids import new_id
from node.platform.keyfiles import NodeKeys, create_node_keys
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint
from protocol.epoch import encode_epoch
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note
from protocol.profile import Request
from protocol.record import Handling

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
FIRST = StreamId("nl.hotline.example", "tester.hotline.example", 1)


class Node:
    """The tested node: what it says to the test member."""

    def __init__(self, folder: Path) -> None:
        create_node_keys(folder / "node", NOW)
        create_node_keys(folder / "tester", NOW)
        self.keys = NodeKeys.load(folder / "node")
        stream_keys = [key.public() for key in self.keys.signing(KeyUse.STREAM)]
        self.inbox = Inbox(FIRST, "http://127.0.0.1:1", NodeKeys.load(folder / "tester"), [], stream_keys, lambda: NOW)

    def log(self, epoch: int, records: Sequence[bytes]) -> Checkpoint:
        edge = Edge.EMPTY.extend(map(leaf_hash, records))
        return Checkpoint(StreamId(FIRST.iss, FIRST.aud, epoch).origin(), edge.size, edge.root())

    def beginning(self, epoch: int, before: Sequence[bytes]) -> bytes:
        """Return the first record of an epoch, after one that ended with these records."""
        return encode_epoch(
            self.log(epoch - 1, before),
            record_id=str(new_id(NOW)),
            iss=FIRST.iss,
            aud=FIRST.aud,
            now=NOW,
            handling=Handling("takedown", NOW + timedelta(days=1)),
        )

    def say(self, epoch: int, records: Sequence[bytes], *, before: Sequence[bytes] = ()) -> bytes:
        """Deliver records behind those `before` them in the epoch; return the receipt."""
        checkpoint = self.log(epoch, [*before, *records])
        note: Note = sign_checkpoint(checkpoint, self.keys.signing(KeyUse.STREAM), now_s=int(NOW.timestamp()))
        http = make_mocked_request("PUT", "/peer/v1/inbox")
        request = Request("PUT", "http://127.0.0.1:1", {}, b"")
        nonce = str(len(self.inbox.nonces))
        return self.inbox.take(Arrival(self.inbox, http, request, nonce, len(before), note, checkpoint, list(records)))

    def refused(self, epoch: int, records: Sequence[bytes], *, before: Sequence[bytes] = ()) -> str:
        with pytest.raises(ProtocolError) as refusal:
            self.say(epoch, records, before=before)
        return refusal.value.code


def test_a_new_epoch_is_taken_where_the_one_before_ended(tmp_path: Path) -> None:
    node = Node(tmp_path)
    old = [b"1", b"2"]
    receipt = node.say(1, old)
    assert node.refused(2, [b"no beginning"]) == "malformed"
    assert node.refused(2, [node.beginning(2, [*old, b"3"])]) == "stream-gap"
    assert node.refused(2, [node.beginning(2, [b"1"])]) == "equivocation"
    assert node.inbox.stream.epoch == 1
    good = node.beginning(2, old)
    node.say(2, [good])
    node.say(2, [b"4"], before=[good])
    assert node.inbox.stream.epoch == 2
    assert node.inbox.everything() == [*old, good, b"4"]
    # What was said in the old one is answered as ever; nothing more is taken of it.
    assert node.say(1, old) == receipt
    assert node.refused(1, [b"3"], before=old) == "equivocation"


def test_at_the_start_of_a_run_any_epoch_may_be_the_newest(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert node.refused(3, [b"later"], before=[b"beginning"]) == "stream-gap"
    good = node.beginning(3, [b"what a run before took"])
    node.say(3, [good, b"later"])
    assert node.inbox.records == [good, b"later"]
