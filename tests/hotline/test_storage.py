"""What lies in the database: nothing of a reported URL in clear, values that open in their row alone, known keys."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import pytest

from node.errors import OperatorError
from node.hotline.assembly import ROLE
from node.hotline.store import outbound
from node.hotline.store.tables import metadata
from node.hotline.store.vault import rotate_master
from node.platform import migrate
from node.platform.database import Database
from node.platform.fieldcrypto import FieldSealed, MasterKey
from node.platform.keyfiles import create_master_key
from protocol.evidence import verify_evidence
from tests.geo.dns_server import Entry, Fault
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.world import ADDRESS, World

#: Parts of what was reported; each is looked for in every spelling that a database could hold it in.
SECRETS = (
    "secrethost",
    "sécret",
    "xn--scret-bsa",
    "secretpath",
    "secretquery",
    "secretfragment",
    "secretuser",
    "secretmedia",
    "secretalias",
    "secretreferrer",
    "secretnote",
    "secretreporter",
    "secretrefused",
    ADDRESS["NL"],
)
REPORTS: tuple[dict[str, object], ...] = (
    {
        "url": "https://secretuser@secrethost.example:8443/secretpath?secretquery=1#secretfragment",
        "media": ["https://secretmedia.example/1.jpg", "https://sécret.example/secretpath"],
        "referrer": "https://secretreferrer.example/?secretquery",
        "note": "secretnote: what somebody wrote",
        "reporter_email": "secretreporter@reporter.example",
        "reference": "R-1",
        "qualification": ILLEGAL,
    },
    {"url": "https://secrethost.example/waits", "reference": "R-2"},
    {"url": "https://secrethost.example/waits#again"},
    {"url": f"http://{ADDRESS['NL']}/secretpath", "qualification": ILLEGAL},
    {"url": "https://secrethost.test/nobody", "qualification": ILLEGAL},
    {"url": "https://secrethost.invalid/fails", "qualification": ILLEGAL},
    {"url": "http://10.0.0.1/secretpath"},
)
ZONE: Mapping[str, Sequence[Entry]] = {
    "secrethost.example": ["CNAME secretalias.example."],
    "secretalias.example": [f"A {ADDRESS['NL']}"],
    "secretmedia.example": [f"A {ADDRESS['NL']}"],
    "xn--scret-bsa.example": [f"A {ADDRESS['FR']}"],
    "secrethost.invalid": [Fault.SERVFAIL],
}


async def dump(db: Database) -> dict[str, str]:
    """Every table of the database as `pg_dump` would write it."""
    tables = {}
    async with db.transaction("test.dump") as tx:
        names = await tx.fetch("SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT LIKE 'pg_%'")
        for schema, name in [(row["schemaname"], row["tablename"]) for row in names]:
            if schema != "information_schema":
                out = io.BytesIO()
                await tx.driver.copy_from_table(name, schema_name=schema, output=out)
                tables[name] = out.getvalue().decode()
    return tables


def spellings(secret: str) -> Iterator[str]:
    """A text as itself, percent-encoded, escaped in JSON and as the bytes of a column."""
    yield secret
    yield quote(secret)
    yield secret.encode("unicode_escape").decode()
    yield secret.encode().hex()
    yield secret.encode("utf-16-le").hex()


def in_clear(tables: dict[str, str]) -> list[tuple[str, str]]:
    """The table and the secret, where one stands in clear."""
    return [
        (name, secret)
        for name, text in tables.items()
        for secret in SECRETS
        if any(spelling.lower() in text.lower() for spelling in spellings(secret))
    ]


async def received(one: Station, items: int) -> None:
    async def there() -> bool:
        return bool(await one.value("SELECT count(*) >= $1 FROM items WHERE received_stream IS NOT NULL", items))

    await eventually(there)


async def run_everything(fr: Station, nl: Station) -> list[UUID]:
    """Report all of it, let it travel and be answered; return the items."""
    found = []
    for report in REPORTS:
        taken = await fr.report(str(report["url"]), **{name: each for name, each in report.items() if name != "url"})
        found += [item.id for item in taken.items]

    async def through() -> bool:
        waiting = await fr.value("SELECT count(*) FROM items WHERE state IN ('locating', 'ready')")
        told = await fr.value(
            "SELECT bool_and(c.outcome_size = s.next_index) FROM outbound_streams s "
            "JOIN delivery_cursors c ON c.stream = s.id"
        )
        return bool(waiting == 1 and told)

    await eventually(through)
    await received(nl, 3)
    return found


async def test_a_stolen_dump_is_no_list_of_urls(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], ZONE) as fr, station(world.nodes[1]) as nl:
        await run_everything(fr, nl)
        for one, filled in (
            (fr, {"cases", "items", "url_identities", "outbox", "receipts", "inbox", "inbound_batches", "field_keys"}),
            (nl, {"cases", "items", "url_identities", "inbox", "inbound_batches", "outbox", "receipts", "field_keys"}),
        ):
            tables = await dump(one.node.db)
            assert set(tables) == {*metadata.tables, "alembic_version"}
            assert all(tables[name] for name in filled)
            assert in_clear(tables) == []
            assert not any("://" in text for text in tables.values())


async def test_a_peer_that_quotes_a_url_in_its_refusal_puts_none_into_our_tables(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/secretpath", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        async with fr.node.db.transaction("test.refuse") as tx:
            stream = await tx.value("SELECT id FROM outbound_streams")
            told = f"there is nothing at http://{ADDRESS['NL']}/secretpath"
            await outbound.refuse(tx, stream, [(0, "not-competent", told)], fr.clock.now())
        assert (await fr.item(item))["state"] == "refused"
        assert in_clear(await dump(fr.node.db)) == []


def test_the_search_for_secrets_finds_them() -> None:
    """The check above would see a leak in each of its forms."""
    for text in ("x secrethost y", "SECRETHOST", "\\x" + b"secrethost".hex(), "s%C3%A9cret", "s\\xe9cret"):
        assert in_clear({"table": text})
    assert not in_clear({"table": "nothing"})


async def test_every_sealed_column_is_named_as_one_and_every_text_in_clear_is_known() -> None:
    """A new column that holds text is looked at by a person before it is added here."""
    kinds = {str(column.type) for table in metadata.sorted_tables for column in table.columns}
    texts = {"TEXT", "CHAR(2)", "JSONB", "ARRAY"}
    assert kinds == texts | {"BLOB", "UUID", "INTEGER", "SMALLINT", "BIGINT", "DATETIME", "BOOLEAN"}
    clear = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if str(column.type) in texts
    }
    assert clear == {
        "judged_keys.peer",
        "judged_keys.direction",
        "judged_keys.windows",
        "actions.action",
        "actions.by",
        "actions.node",
        "actions.reason",
        "api_keys.id",
        "api_keys.name",
        "api_keys.roles",
        "assessments.node",
        "assessments.qualification",
        "cases.channel",
        "cases.commerciality",
        "cases.payment_methods",
        "cases.reference",
        "cases.site_type",
        "cases.submitter",
        "custody.holder",
        # Countries, nodes, and hashes of where a host was found: no address of content.
        "custody.trail",
        "disputes.code",
        "disputes.handed_in_to",
        "disputes.other",
        "disputes.refused",
        "relay_failures.code",
        "relay_failures.node",
        "relay_failures.type",
        "relocations.country",
        "taken_back.giver",
        "taken_back.taker",
        "equivocations.handed_in_to",
        "equivocations.origin",
        "equivocations.peer",
        "equivocations.refused",
        "field_keys.master_id",
        "field_keys.purpose",
        "inbound_streams.peer",
        "inbox_refusals.code",
        "inbox_refusals.detail",
        "inbox_refusals.field",
        "items.assigned_country",
        "items.assigned_node",
        "items.hashes",
        "items.hosting_country",
        "items.kind",
        "items.peer_qualification",
        "items.qualification",
        "items.reason",
        "items.registered_country",
        "items.reporter",
        "items.state",
        "items.verdict",
        "items.verdict_reasons",
        "items.withdrawn_reason",
        "nonces.keyid",
        "nonces.nonce",
        "outbound_streams.peer",
        "outbox.type",
        "outbox_refusals.code",
        "outbox_refusals.detail",
        "peer_budgets.peer",
        "peers.last_problem",
        "peers.node_id",
        "recovery_replays.code",
        "recovery_tail.peer",
        "recovery_tail.type",
        "stream_differences.direction",
        "stream_differences.kind",
        "stream_differences.peer",
        "subtrees.log",
    }


async def test_a_sealed_value_opens_in_its_own_row_and_column_alone(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        taken = await fr.report(
            "https://host.example/1", referrer="https://r.example/", note="n", reporter_email="a@b.example"
        )
        other = await fr.report("https://host.example/2", referrer="https://s.example/", note="m")
        vault = fr.node.store.vault
        first, second = taken.items[0].id, other.items[0].id
        sealed = (await fr.item(first))["url_enc"]
        assert vault.open("items", "url_enc", first, sealed) == "https://host.example/1"
        for table, column, row in (
            ("items", "url_enc", second),
            ("items", "normal_enc", first),
            ("cases", "url_enc", first),
            ("cases", "note_enc", taken.case_id),
        ):
            with pytest.raises(FieldSealed) as refused:
                vault.open(table, column, row, sealed)
            assert "host.example" not in str(refused.value)
        for column in ("referrer_enc", "note_enc"):
            value = await fr.value(f"SELECT {column} FROM cases WHERE id = $1", taken.case_id)  # noqa: S608 - our own
            assert vault.open("cases", column, taken.case_id, value)
            with pytest.raises(FieldSealed):
                vault.open("cases", column, other.case_id, value)


async def test_a_record_opens_at_its_own_place_alone(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        for n in range(2):
            await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)
        await received(nl, 2)
        vault = nl.node.store.vault
        stream = await nl.value("SELECT id FROM inbound_streams")
        sealed = await nl.value("SELECT record_enc FROM inbox WHERE idx = 0")
        assert vault.open_record("inbox", stream, 0, sealed)
        for table, other, idx in (("inbox", stream, 1), ("inbox", stream + 1, 0), ("outbox", stream, 0)):
            with pytest.raises(FieldSealed):
                vault.open_record(table, other, idx, sealed)
        # Another node's key opens nothing of it.
        with pytest.raises(FieldSealed):
            fr.node.store.vault.open_record("inbox", stream, 0, sealed)


async def test_the_same_url_is_sealed_differently_and_found_by_one_digest(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        rows = [await fr.item((await fr.report("https://host.example/x")).items[0].id) for _ in range(2)]
        assert rows[0]["url_enc"] != rows[1]["url_enc"]
        assert rows[0]["url_digest"] == rows[1]["url_digest"]
        elsewhere = await nl.item((await nl.report("https://host.example/x")).items[0].id)
        # Digests are keyed: two stolen dumps cannot be compared.
        assert elsewhere["url_digest"] != rows[0]["url_digest"]


async def test_the_tables_are_the_ones_the_code_expects(world: World) -> None:
    db = Database(world.nodes[0].settings.database_url)
    assert await migrate.differences(db.engine, metadata) == []
    assert await migrate.is_current(db.engine, ROLE, metadata)
    async with db.transaction("test.change") as tx:
        await tx.execute("ALTER TABLE items ADD COLUMN colour text")
    assert len(await migrate.differences(db.engine, metadata)) == 1
    async with db.transaction("test.change") as tx:
        await tx.execute("UPDATE alembic_version SET version_num = '0000'")
    assert not await migrate.is_current(db.engine, ROLE, metadata)
    with pytest.raises(OperatorError, match="hotline migrate"):
        async with station(world.nodes[0]):
            pass
    await db.close()


async def test_every_key_of_ours_is_a_uuid_of_version_7_that_tells_when(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], ZONE) as fr, station(world.nodes[1]) as nl:
        begun = datetime.now(UTC).replace(microsecond=0)
        await run_everything(fr, nl)
        async with fr.node.db.transaction("test.read") as tx:
            ids = [row["id"] for row in await tx.fetch("SELECT id FROM cases UNION ALL SELECT id FROM items")]
            ids += [row["record_id"] for row in await tx.fetch("SELECT record_id FROM outbox")]
        assert len(ids) >= len(REPORTS) * 2
        assert {one.version for one in ids} == {7}
        assert len(set(ids)) == len(ids)
        stamps = [datetime.fromtimestamp((one.int >> 80) / 1000, UTC) for one in ids]
        assert begun <= min(stamps) <= max(stamps) <= datetime.now(UTC)


async def test_rotating_the_master_key_leaves_everything_readable_and_shuts_the_old_one_out(world: World) -> None:
    await world.create_field_keys()
    one = world.nodes[0]
    async with station(one, ZONE) as fr, station(world.nodes[1]) as nl:
        items = await run_everything(fr, nl)
        proven, *_ = [item for item in items if (await fr.item(item))["state"] == "sent"]
        proof = await fr.node.store.prover().prove(proven)
        before = await dump(fr.node.db)
    new_file = world.folder / "new-master.key"
    create_master_key(new_file)
    changed = replace(one.settings, master_key_file=new_file)
    db = Database(one.settings.database_url)
    async with db.transaction("test.rotate") as tx:
        assert await rotate_master(tx, MasterKey.load(one.settings), MasterKey.load(changed)) == 2
    after = await dump(db)
    await db.close()
    assert {name for name in before if before[name] != after[name]} == {"field_keys"}
    with pytest.raises(OperatorError, match="master key"):
        async with station(one):
            pass
    async with station(replace(one, settings=changed), ZONE) as fr:
        vault = fr.node.store.vault
        for item in items:
            row = await fr.item(item)
            assert vault.open("items", "url_enc", item, row["url_enc"]).startswith("http")
        assert await fr.node.store.prover().prove(proven) == proof
        assert verify_evidence(proof, fr.node.directory()).item == str(proven)
        again = await fr.report("https://secrethost.example/waits#third")
        assert (
            again.items[0].duplicate_of == (await fr.report("https://secrethost.example/waits")).items[0].duplicate_of
        )


async def test_rotating_from_a_wrong_master_key_changes_nothing(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    db = Database(world.nodes[0].settings.database_url)
    right = MasterKey.load(world.nodes[0].settings)
    before = await dump(db)
    with pytest.raises(OperatorError):
        async with db.transaction("test.rotate") as tx:
            await rotate_master(tx, MasterKey(bytes(32)), right)
    assert await dump(db) == before
    await db.close()
