"""A desk that says what is no ruling of this dispute: nothing is done on it, and the item stays where it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from node.hotline.flows.transfer.disputes import NOT_FOLLOWED
from node.hotline.gateways.desk import DeskGateway
from node.platform.ids import new_id
from protocol.desk import Ruling, sign_ruling
from protocol.directory import DeskEntry
from protocol.keys import KeyUse, SigningKey
from protocol.tlogproof import parse_tlog_proof
from tests.hotline.network import Station, eventually, station
from tests.moves.chain import arrived, custodians, move, reported
from tests.moves.test_disputes import case_at, desk_of, disputing
from tests.world import TestNode, World

__all__ = ["disputing"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A dispute that the desk is asked about, and who there is to answer."""

    desk: TestNode
    dispute: UUID
    case: str
    item: str
    holder: TestNode
    other: TestNode
    at: Any

    def ruling(self, **said: str) -> Ruling:
        """Return a ruling that gives the item to the other one, but for what is `said` instead."""
        members: dict[str, Any] = {
            "desk": self.desk.id,
            "dispute": str(self.dispute),
            "case": self.case,
            "item": self.item,
            "custodian": self.other.id,
            "country": "DE",
        }
        return Ruling(**(members | said), at=self.at)

    def keys(self, of: TestNode, use: KeyUse) -> tuple[SigningKey, ...]:
        return tuple(of.keys.signing(use))


def by_a_hotline(asked: Asked) -> bytes:
    """Signed by keys of a member, and not the desk's."""
    return sign_ruling(asked.ruling(), asked.keys(asked.other, KeyUse.STREAM))


def by_one_algorithm(asked: Asked) -> bytes:
    return sign_ruling(asked.ruling(), asked.keys(asked.desk, KeyUse.DESK)[:1])


def of_another_desk(asked: Asked) -> bytes:
    return sign_ruling(asked.ruling(desk="desk.invalid"), asked.keys(asked.desk, KeyUse.DESK))


def of_another_dispute(asked: Asked) -> bytes:
    return sign_ruling(asked.ruling(dispute=str(new_id(asked.at))), asked.keys(asked.desk, KeyUse.DESK))


def of_another_item(asked: Asked) -> bytes:
    return sign_ruling(asked.ruling(item=str(new_id(asked.at))), asked.keys(asked.desk, KeyUse.DESK))


def rubbish(_asked: Asked) -> bytes:
    return b"\x00 nothing that anybody could read"


def altered(asked: Asked) -> bytes:
    """The true ruling, with another custodian written into it."""
    true = sign_ruling(asked.ruling(custodian=asked.holder.id), asked.keys(asked.desk, KeyUse.DESK))
    forged = sign_ruling(asked.ruling(), asked.keys(asked.desk, KeyUse.DESK))
    return replace(parse_tlog_proof(true), extra=parse_tlog_proof(forged).extra).to_bytes()


LIES: list[Callable[[Asked], bytes]] = [
    by_a_hotline,
    by_one_algorithm,
    of_another_desk,
    of_another_dispute,
    of_another_item,
    rubbish,
    altered,
]


async def disputed(world: World, nl: Station, fr: Station, desk: Any) -> Asked:
    """Bring an item before the desk, and return what it is asked."""
    item = await reported(fr, nl, "NL")
    await move(nl, item)
    await arrived(nl, item, "disputed")
    case = await case_at(desk)
    row = await nl.item(item)
    assert world.desk is not None
    now = nl.clock.now().replace(microsecond=0)
    return Asked(world.desk, case["id"], str(row["case_id"]), str(item), world.nodes[1], world.nodes[2], now)


async def test_what_is_no_ruling_of_the_dispute_moves_nothing(
    disputing: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = disputing
    await world.create_field_keys()
    said: list[bytes] = []
    asked_for: list[UUID] = []

    async def answers(_self: DeskGateway, _desk: DeskEntry, dispute: UUID) -> bytes | None:
        asked_for.append(dispute)
        return said[-1] if said else None

    monkeypatch.setattr(DeskGateway, "ruling", answers)
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl, desk_of(world) as desk:
        asked = await disputed(world, nl, fr, desk)
        item = UUID(asked.item)
        for lie in LIES:
            said.append(lie(asked))
            before = len(asked_for)

            async def heard(before: int = before) -> bool:
                # Asked once more after the answer that was read.
                return len(asked_for) > before + 1

            await eventually(heard)
            row = await nl.item(item)
            assert (row["state"], row["reason"]) == ("disputed", "same-evidence"), lie.__name__
            assert await nl.value("SELECT count(*) FROM disputes WHERE followed_at IS NOT NULL") == 0
            assert await nl.value("SELECT count(*) FROM outbox WHERE type = 'transfer'") == 0
        # And then the truth, for one that is no member any more: the item stays, and a person sees why.
        said.append(sign_ruling(asked.ruling(custodian="gone.invalid"), asked.keys(asked.desk, KeyUse.DESK)))
        await arrived(nl, item, "assigned")
        assert (await nl.item(item))["reason"] == NOT_FOLLOWED
        assert await custodians([fr, nl], item) == ["NL"]
