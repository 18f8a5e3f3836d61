"""What a hostile repository may try, in the manner of the TUF conformance suite, against our walk through it."""

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from node.clock import rfc3339
from node.platform.repository import make_targets, sign
from node.platform.trust import (
    ROTATIONS_MAX,
    STALE_FOR,
    TIMESTAMP,
    Fault,
    Freshness,
    MetadataInvalid,
    Roots,
    Trusted,
    Update,
    read_set,
    root_file,
)
from tests.platform.tuf_repository import HOUR, NOW, Repository, begin, document, go_through, key, update


@pytest.fixture
def repository() -> Repository:
    return Repository.begun()


@pytest.fixture
def trusted(repository: Repository) -> Trusted:
    """What a node trusts after its first update."""
    return update(begin(repository), repository.files)


def version(trusted: Trusted) -> int:
    assert trusted.use is not None
    return trusted.use.directory.version


def refused(trusted: Trusted, repository: Repository, fault: Fault, file: str | None = None) -> Trusted:
    """Expect this fault, and that the directory in use is the one before; return what is trusted afterwards."""
    pass_ = Update(trusted, NOW)
    with pytest.raises(MetadataInvalid) as caught:
        go_through(pass_, repository.files)
    assert caught.value.fault is fault, caught.value
    if file is not None:
        assert caught.value.file == file
    if trusted.use is not None:
        assert pass_.trusted.use is not None
        assert pass_.trusted.use.directory is trusted.use.directory
    return pass_.trusted


def test_from_the_pinned_root_to_the_directory(repository: Repository, trusted: Trusted) -> None:
    assert trusted.use is not None
    assert (version(trusted), trusted.use.root_version) == (1, 1)
    assert trusted.use.fresh_until == NOW + 72 * HOUR
    assert trusted.files() == repository.files
    repository.publish()
    assert version(update(trusted, repository.files)) == 2


def test_another_root_than_the_pinned_one_is_none(repository: Repository) -> None:
    other = replace(repository, root_keys=("x", "y"), files={}, root_version=0)
    other.rotate()
    with pytest.raises(MetadataInvalid) as caught:
        Roots.pinned(1, other.files[root_file(1)], repository.pin)
    assert caught.value.fault is Fault.PIN


def test_a_renewed_timestamp_makes_it_fresh_again_and_nothing_is_read_twice(
    repository: Repository, trusted: Trusted
) -> None:
    repository.timestamp_expires = NOW + 100 * HOUR
    repository.stamp()
    asked = []
    pass_ = Update(trusted, NOW)
    wanted = pass_.advance(None)
    while wanted is not None:
        asked.append(wanted.file)
        wanted = pass_.advance(repository.files.get(wanted.file))
    assert asked == ["2.root.json", TIMESTAMP]
    assert trusted.use is not None
    assert pass_.trusted.use is not None
    assert pass_.trusted.use.fresh_until == NOW + 100 * HOUR
    assert pass_.trusted.use.directory is trusted.use.directory


# Rollback.


def test_an_older_timestamp_is_refused(repository: Repository, trusted: Trusted) -> None:
    old = repository.copy()
    repository.publish()
    newer = update(trusted, repository.files)
    refused(newer, old, Fault.ROLLBACK, TIMESTAMP)


def test_a_new_timestamp_of_an_older_snapshot_is_refused(repository: Repository, trusted: Trusted) -> None:
    old = repository.snapshot
    repository.publish()
    newer = update(trusted, repository.files)
    repository.stamp(old)
    refused(newer, repository, Fault.ROLLBACK, TIMESTAMP)


def test_a_new_snapshot_of_older_targets_is_refused(repository: Repository, trusted: Trusted) -> None:
    old = repository.targets
    repository.publish()
    newer = update(trusted, repository.files)
    repository.take_snapshot(old)
    refused(newer, repository, Fault.ROLLBACK, "3.snapshot.json")


def test_a_timestamp_whose_snapshot_was_kept_back_still_counts(repository: Repository, trusted: Trusted) -> None:
    between = repository.copy()
    between.publish()
    repository.publish()
    repository.publish()
    del repository.files["3.snapshot.json"]
    seen = refused(trusted, repository, Fault.MISSING)
    refused(seen, between, Fault.ROLLBACK, TIMESTAMP)


@pytest.mark.parametrize("claimed", [1, 3])
def test_a_root_that_is_not_the_next_is_refused(repository: Repository, trusted: Trusted, claimed: int) -> None:
    repository.rotate(version=claimed)
    refused(trusted, repository, Fault.ROLLBACK, "2.root.json")


def test_two_timestamps_of_one_version_are_a_contradiction(repository: Repository, trusted: Trusted) -> None:
    repository.publish()
    repository.timestamp_version = 0
    repository.stamp()
    refused(trusted, repository, Fault.MISMATCH, TIMESTAMP)


# Freeze and expiry.


def test_a_freeze_is_noticed(repository: Repository, trusted: Trusted) -> None:
    pass_ = Update(trusted, NOW + 72 * HOUR)
    assert pass_.advance(None) is not None
    pass_.advance(None)
    with pytest.raises(MetadataInvalid) as caught:
        pass_.advance(repository.files[TIMESTAMP])
    assert caught.value.fault is Fault.EXPIRED


@pytest.mark.parametrize(
    ("role", "file"),
    [("root", "2.root.json"), ("timestamp", TIMESTAMP), ("snapshot", "2.snapshot.json"), ("targets", "2.targets.json")],
)
def test_what_has_expired_is_not_taken(repository: Repository, trusted: Trusted, role: str, file: str) -> None:
    setattr(repository, f"{role}_expires", NOW)
    if role == "root":
        repository.rotate()
    repository.publish()
    refused(trusted, repository, Fault.EXPIRED, file)


def test_an_expired_root_on_the_way_to_a_newer_one_does_no_harm(repository: Repository, trusted: Trusted) -> None:
    good = repository.root_expires
    repository.root_expires = NOW - HOUR
    repository.rotate()
    repository.root_expires = good
    repository.rotate()
    repository.publish()
    assert version(update(trusted, repository.files)) == 2


def test_how_far_it_can_be_relied_on(trusted: Trusted) -> None:
    use = trusted.use
    assert use is not None
    second = timedelta(seconds=1)
    end = NOW + 72 * HOUR
    assert [use.freshness(at) for at in (NOW, end - second)] == [Freshness.FRESH] * 2
    assert [use.freshness(at) for at in (end, end + STALE_FOR - second)] == [Freshness.STALE] * 2
    assert use.freshness(end + STALE_FOR) is Freshness.EXPIRED
    assert replace(use, superseded=True).freshness(NOW) is Freshness.STALE


# Mix and match, wrong content, wrong length.


def spoil(name: str) -> Callable[[Repository], None]:
    def change(repository: Repository) -> None:
        found = next(one for one in repository.files if one.endswith(name) and not one.startswith("1."))
        repository.files[found] = repository.files[found].replace(b"20", b"02", 1)

    return change


def lengthen(name: str) -> Callable[[Repository], None]:
    def change(repository: Repository) -> None:
        found = next(one for one in repository.files if one.endswith(name) and not one.startswith("1."))
        repository.files[found] += b" "

    return change


@pytest.mark.parametrize("name", ["snapshot.json", "targets.json"])
@pytest.mark.parametrize("make", [spoil, lengthen])
def test_a_file_that_is_not_the_one_described_is_refused(
    repository: Repository, trusted: Trusted, make: Callable[[str], Callable[[Repository], None]], name: str
) -> None:
    repository.publish()
    make(name)(repository)
    refused(trusted, repository, Fault.MISMATCH)


def test_another_directory_under_the_right_name_is_refused(repository: Repository, trusted: Trusted) -> None:
    repository.publish(issued_at="2026-11-21T12:00:00.000Z")
    name = next(
        one
        for one in repository.files
        if one.endswith(".directory.json") and repository.files[one] == repository.document
    )
    for other in (document(2), repository.document + b" "):
        repository.files[name] = other
        refused(trusted, repository, Fault.MISMATCH if len(other) <= len(repository.document) else Fault.TOO_LARGE)


def test_a_snapshot_with_the_targets_of_another_time_is_refused(repository: Repository, trusted: Trusted) -> None:
    first = repository.files["1.targets.json"]
    repository.publish()
    repository.files["2.targets.json"] = first
    refused(trusted, repository, Fault.MISMATCH, "2.targets.json")


def test_targets_whose_version_is_not_the_directorys_are_refused(repository: Repository, trusted: Trusted) -> None:
    repository.publish()
    changed = json.loads(repository.targets)
    changed["signed"]["version"] = 7
    raw = json.dumps(changed).encode()
    for name in repository.targets_keys:
        raw = sign(raw, key(name))
    repository.targets = raw
    repository.take_snapshot()
    refused(trusted, repository, Fault.MISMATCH, "directory.json")


# Signatures and thresholds.


@pytest.mark.parametrize("signers", [(), ("targets a",), ("targets a", "root a"), ("stranger", "stranger")])
def test_too_few_signatures_of_the_directory_are_none(
    repository: Repository, trusted: Trusted, signers: tuple[str, ...]
) -> None:
    repository.publish(signers=signers)
    refused(trusted, repository, Fault.UNSIGNED, "2.targets.json")


def test_a_signature_that_stands_twice_is_no_metadata(repository: Repository, trusted: Trusted) -> None:
    repository.publish()
    doubled = json.loads(repository.files[TIMESTAMP])
    doubled["signatures"] *= 2
    repository.files[TIMESTAMP] = json.dumps(doubled).encode()
    refused(trusted, repository, Fault.MALFORMED, TIMESTAMP)


def test_a_timestamp_by_another_role_s_key_is_none(repository: Repository, trusted: Trusted) -> None:
    repository.timestamp_key = "snapshot"
    repository.publish()
    refused(trusted, repository, Fault.UNSIGNED, TIMESTAMP)


@pytest.mark.parametrize("signers", [("root a",), ("root c", "new"), ("root d", "root e")])
def test_a_root_needs_enough_of_the_old_and_of_the_new_keys(
    repository: Repository, trusted: Trusted, signers: tuple[str, ...]
) -> None:
    repository.root_keys = ("root c", "root d", "root e")
    repository.rotate(signers=signers)
    refused(trusted, repository, Fault.UNSIGNED, "2.root.json")


def test_a_chain_of_roots_is_followed_to_its_end(repository: Repository, trusted: Trusted) -> None:
    for number in range(5):
        old = repository.root_keys
        repository.root_keys = (*old[1:], f"root {number}")
        repository.rotate(signers={*old, *repository.root_keys})
    repository.publish()
    newer = update(trusted, repository.files)
    assert (version(newer), newer.roots.newest.version) == (2, 6)
    again = read_set(lambda wanted: repository.files.get(wanted.file), begin(repository).roots)
    assert version(again) == 2


def test_a_chain_of_roots_without_end_is_left_for_the_next_time(repository: Repository) -> None:
    pass_ = Update(begin(repository), NOW)
    wanted = pass_.advance(None)
    count = 0
    while wanted is not None and wanted.file.endswith(".root.json"):
        repository.root_version = count + 1
        repository.rotate()
        wanted = pass_.advance(repository.files[root_file(count + 2)])
        count += 1
    assert count == ROTATIONS_MAX


# Fast-forward recovery.


def test_a_thief_who_counted_ahead_is_left_behind_by_a_new_root(repository: Repository, trusted: Trusted) -> None:
    thief = repository.copy()
    thief.timestamp_version = thief.snapshot_version = 2**31
    thief.take_snapshot()
    ahead = update(trusted, thief.files)
    repository.publish()
    refused(ahead, repository, Fault.ROLLBACK, TIMESTAMP)
    repository.timestamp_key, repository.snapshot_key = "new timestamp", "new snapshot"
    repository.rotate()
    repository.take_snapshot()
    recovered = update(ahead, repository.files)
    assert version(recovered) == 2
    assert recovered.use is not None
    assert not recovered.use.superseded


def test_until_the_new_keys_have_signed_the_old_directory_is_stale(repository: Repository, trusted: Trusted) -> None:
    repository.timestamp_key = "new timestamp"
    repository.rotate()
    later = refused(trusted, repository, Fault.UNSIGNED, TIMESTAMP)
    assert later.use is not None
    assert later.use.freshness(NOW) is Freshness.STALE
    again = read_set(lambda wanted: later.files().get(wanted.file), begin(repository).roots)
    assert again.use is not None
    assert (again.use.superseded, again.roots.newest.version) == (True, 2)


# What is no metadata.


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"signed": {}, "signatures": []}', b"null"]
)
def test_what_is_no_metadata_is_refused(repository: Repository, trusted: Trusted, raw: bytes) -> None:
    repository.files[TIMESTAMP] = raw
    with pytest.raises(MetadataInvalid):
        update(trusted, repository.files)


def test_a_file_of_another_role_is_refused(repository: Repository, trusted: Trusted) -> None:
    repository.files[TIMESTAMP] = repository.files["1.snapshot.json"]
    refused(trusted, repository, Fault.MALFORMED, TIMESTAMP)


def test_more_bytes_than_allowed_are_refused(repository: Repository, trusted: Trusted) -> None:
    repository.files[TIMESTAMP] += b" " * 20_000
    refused(trusted, repository, Fault.TOO_LARGE, TIMESTAMP)


def test_a_directory_that_breaks_a_rule_is_refused(repository: Repository, trusted: Trusted) -> None:
    repository.version += 1
    good = document(2)
    bad = good.replace(b"https://fr.hotline.example", b"ftps_//fr.hotline.example")
    targets = make_targets(good, repository.targets_expires)
    raw = targets.replace(sha256(good).hexdigest().encode(), sha256(bad).hexdigest().encode()).replace(
        str(len(good)).encode(), str(len(bad)).encode()
    )
    for name in repository.targets_keys:
        raw = sign(raw, key(name))
    repository.targets, repository.document = raw, bad
    repository.take_snapshot()
    refused(trusted, repository, Fault.CONTENT, "directory.json")


def _rotated(document: bytes, nodes: int, rotations: Mapping[int, int]) -> list[dict[str, Any]]:
    """Return entries of so many nodes that have changed all their keys so often, ten times where it is not said."""
    template = json.loads(document)["nodes"][0]
    drawn = random.Random(1)  # noqa: S311 -- the keys sign nothing
    uses = [(use, "ed25519") for use in ("http", "stream", "receipt")]
    uses += [(use, "ml-dsa-44") for use in ("stream", "receipt")]
    entries = []
    for number in range(nodes):
        times = rotations.get(number, 10)
        keys = []
        for turn in range(times + 1):
            begin, end = (rfc3339(NOW - timedelta(days=90 * (times - turn + one))) for one in (1, 0))
            for use, algorithm in uses:
                public = base64.b64encode(drawn.randbytes(32 if algorithm == "ed25519" else 1312)).decode()
                last = turn == times
                keys.append(
                    {
                        "use": use,
                        "algorithm": algorithm,
                        "public": public,
                        "state": "active" if last else "retired",
                        "not_before": begin,
                        "retired_at": None if last else end,
                    }
                )
        node_id = f"n{number}.hotline.example"
        entries.append({**template, "id": node_id, "base_url": f"https://{node_id}", "keys": keys})
    return entries


def test_200_nodes_may_change_all_their_keys_ten_times_and_one_of_them_fifty_times(
    repository: Repository, trusted: Trusted
) -> None:
    nodes = _rotated(repository.document, 200, {0: 50})
    repository.publish(nodes=nodes, routing={"mandated": [], "desk": None})
    use = update(trusted, repository.files).use
    assert use is not None
    assert use.directory.version == 2
    assert sum(len(node.keys) for node in use.directory.nodes.values()) == 199 * 55 + 255
