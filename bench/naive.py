"""The naive design that delivery is compared with: a signature, a request and a commit for each record, by ORM."""

import base64
import time
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
import msgspec
import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from node.platform.database import driver_url
from node.platform.embedded import EmbeddedPostgres
from node.platform.ids import new_id
from protocol.keys import Algorithm, SigningKey

_KEY = SigningKey(Algorithm.ED25519, bytes(range(32)))


class Base(DeclarativeBase):
    """The tables of the naive design."""


class Record(Base):
    """One record at the receiver, or its receipt at the sender."""

    __tablename__ = "naive_records"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    body: Mapped[bytes] = mapped_column(sa.LargeBinary)
    signature: Mapped[bytes] = mapped_column(sa.LargeBinary)


async def naive_rate(sender: EmbeddedPostgres, receiver: EmbeddedPostgres, *, seconds: float) -> float:
    """Return records/s of the naive design over about `seconds`, one after the other."""
    engines = [create_async_engine(driver_url(sender.url("fr"))), create_async_engine(driver_url(receiver.url("nl")))]
    for engine in engines:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def inbox(request: web.Request) -> web.Response:
        body = await request.read()
        signature = base64.b64decode(request.headers["signature"])
        _KEY.public().verify(signature, body)
        message = msgspec.json.decode(body)
        async with AsyncSession(engines[1]) as session:
            session.add(Record(id=UUID(message["id"]), body=body, signature=signature))
            await session.commit()
        return web.Response(body=_KEY.sign(signature))

    app = web.Application()
    app.router.add_post("/inbox", inbox)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    done = 0
    async with aiohttp.ClientSession() as client:
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            record_id = new_id(datetime.now(UTC))
            body = msgspec.json.encode({"id": str(record_id), "body": "x" * 1200})
            signature = _KEY.sign(body)
            headers = {"signature": base64.b64encode(signature).decode()}
            async with client.post(f"http://127.0.0.1:{port}/inbox", data=body, headers=headers) as answer:
                receipt = await answer.read()
            _KEY.public().verify(receipt, signature)
            async with AsyncSession(engines[0]) as session:
                session.add(Record(id=record_id, body=body, signature=receipt))
                await session.commit()
            done += 1
        rate = done / (time.perf_counter() - started)
    await runner.cleanup()
    for engine in engines:
        await engine.dispose()
    return rate
