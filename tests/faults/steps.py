"""The durable steps of the program, read from its source, and what the fault tests do with each."""

import ast
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_SOURCE = Path(__file__).parents[2] / "node"

#: Steps of a node that sends; the outcomes of what it sent come back to it, so it receives and applies as well.
SENDER = (
    "directory.accept",
    "intake.store",
    "locate.lease",
    "locate.store",
    "dispatch.store",
    "deliver.receipt",
    "receive.store",
    "apply.store",
)
#: Steps of a node that receives, and sends outcomes back.
RECEIVER = ("directory.accept", "receive.store", "apply.store", "deliver.receipt")
#: Steps that pass only when the peer is away.
ALONE = ("deliver.failed",)
#: Steps off the main road, each with a test of its own.
ASIDE = (
    "hello.store",
    "recover.begin",
    "recover.own",
    "recover.epochs",
    "recover.replay",
    "recover.end",
    "settle.receipt",
    "pull.begin",
    "pull.brought",
    "assess.store",
    "act.store",
    "correct.store",
    "withdraw.store",
    "reroute.store",
    "peer.heard",
    "receive.equivocation",
    "judge.store",
    "move.ask",
    "move.lease",
    "move.store",
    "fallback.store",
    "orphans.store",
    "resend.store",
    "retell.store",
    "dispute.handed",
    "dispute.follow",
    "desk.take",
    "desk.decide",
)

#: Transactions that change nothing; every fault test checks that they did not.
READ_ONLY: Mapping[str, str] = MappingProxyType(
    {
        "start.contact": "asks whether the database answers",
        "start.keys": "reads the wrapped field keys",
        "judge.read": "reads with whom there are streams",
        "deliver.due": "reads which peers have a backlog",
        "directory.check": "compares versions",
        "publish.read": "reads what is published",
        "deliver.read": "reads records, cursors and contacts",
        "receive.turn": "reads how far a stream is held",
        "giveback.read": "reads what a peer is to get back of its own records",
        "recover.read": "reads how far a stream of ours was receipted",
        "offer.read": "reads what a peer that fetches is to get",
        "pull.read": "reads from where to fetch, and which receipts a peer lacks",
        "hello.read": "reads how far the streams with a peer have come",
        "peer.read": "reads a receipt or a cursor",
        "fallback.read": "reads which peers have a backlog",
        "withdraw.read": "reads which items of ours a hotline that is gone has",
        "gauges.read": "reads queues for the metrics",
        "status.read": "reads queues for the status",
        "ready.contact": "asks whether the database answers",
        "prove.read": "reads a record and its receipt",
        "init.look": "asks whether the field keys are there",
        "audit.read": "a snapshot, read-only by the database's own word",
        "audit.cursors": "a snapshot, read-only by the database's own word",
        "items.page": "reads items for the API",
        "dispute.due": "reads which disputes are open",
        "desk.read": "reads the desk's cases and rulings",
        "items.chain": "reads who has had an item, for the API",
        "items.search": "reads items for the API",
        "items.show": "reads items for the API",
        "apikeys.read": "reads the hash of an API key",
    }
)
#: Transactions that change something and need no test of a kill, and why.
HARMLESS: Mapping[str, str] = MappingProxyType(
    {
        "publish.store": "the coordinator's: a publication is in the table whole or not at all",
        "publish.renew": "the coordinator's: as publish.store, and signed again within a minute",
        "dispute.refused": "one mark, made again at the desk's next answer",
        "compare.store": "what differs is found again by the next comparison, and mended as it then is",
        "recover.asked": "notes whom a recovery asks, as every run does",
        "recover.resend": "sets a cursor back to the last receipt that counts, as every run does",
        "recover.again": "lets what could not be done be tried again, as every run does",
        "pull.back": "ends a wait that ends by itself",
        "move.recall": "as locate.recall",
        "locate.recall": "moves times at which items are due, once a minute: what one round leaves the next one takes",
        "prune.nonces": "deletes by age alone, once a minute: what one round leaves the next one takes",
        "init.keys": "makes the field keys, whole or not at all; `hotline init` says that it did not end",
        "migrate.keys": "makes the field keys where there are none, whole or not at all",
        "keys.rotate-master": "wraps every field key anew or none; both master keys are in their files by then",
        "apikeys.add": "one row, by a command whose caller sees that it did not end",
        "apikeys.revoke": "one row, by a command whose caller sees that it did not end",
    }
)


def named_transactions() -> set[str]:
    """Return the name of every transaction in the program; a name that is not a literal fails the test."""
    names: set[str] = set()
    for path in sorted(_SOURCE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if call.func.attr not in {"transaction", "snapshot"}:
                continue
            name = call.args[0] if call.args else None
            assert isinstance(name, ast.Constant), f"{path.name}:{call.lineno}: the name of a step is a literal"
            names.add(str(name.value))
    return names
