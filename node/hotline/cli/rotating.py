"""`hotline keys rotate-signing`: new signing keys, step by step, in the keys folder and the node's descriptor.

The node may be the coordinator, whose descriptor is the desk's. It changes nothing for anybody: which key signs and
which is believed is what the published directory says.
"""

from argparse import ArgumentParser, Namespace
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from node.clock import parse_rfc3339, rfc3339
from node.errors import OperatorError
from node.hotline.cli.describing import read_descriptor, write_descriptor
from node.platform.cli.command import Context
from node.platform.keyfiles import DESK_KEYS, NODE_KEYS, create_key, descriptor_path, load_keys, own_slots, read_key
from node.settings import Settings
from protocol.keys import KeyState, KeyUse

#: Announced so long before they count, unless told otherwise: 48 h are asked for, and signers need time.
_NOTICE: Final = timedelta(days=4)
#: So long before the switch the directory that says it has to be out.
_LEAD: Final = timedelta(hours=1)
_RETIRED: Final = "retired"
_USES: Final = tuple(dict.fromkeys(use for use, _ in (*NODE_KEYS, *DESK_KEYS)))


def add_rotation(actions: Any) -> None:
    """Describe the command."""
    rotate: ArgumentParser = actions.add_parser(
        "rotate-signing",
        help="new signing keys: announce, switch, clear away; or after a theft",
        description=(
            "Change signing keys without a restart. `announce` makes the new keys and lists them as `next`; `switch` "
            "lists them as active and the old ones as retired from one moment on; `clear` moves retired keys out of "
            "the way. Each of the first two changes the descriptor, which those who sign the directory publish. "
            "`compromised` replaces stolen keys at once."
        ),
    )
    rotate.add_argument("step", choices=("announce", "switch", "clear", "compromised"), help="what is to be done")
    rotate.add_argument(
        "--use", action="append", choices=[use.value for use in _USES], help="keys of this use alone; may be repeated"
    )
    rotate.add_argument(
        "--at", metavar="TIME", help="when the new keys begin to count; with `compromised`: since when the old do not"
    )
    rotate.set_defaults(run=_run)


def _run(arguments: Namespace, context: Context) -> int:
    settings, now = context.settings(), context.clock.now()
    own = list(dict.fromkeys(use for use, _ in own_slots(settings)))
    uses = [KeyUse(use) for use in arguments.use or own]
    if strange := [use for use in uses if use not in own]:
        raise OperatorError(f"Option --use: there is no {strange[0]} key in role {settings.role}.")
    at = None if arguments.at is None else _time(arguments.at)
    path = descriptor_path(settings)
    if arguments.step == "clear":
        print(f"{clear(settings, now)} key files are in {settings.keys_dir / _RETIRED} now; no signature needs them.")
        return 0
    step = {"announce": announce, "switch": switch, "compromised": replace_stolen}[arguments.step]
    said = step(settings, uses, at, now)
    print(said)
    urgent = " with --urgent" if arguments.step == "compromised" else ""
    print(f"Next: give {path} to those who sign the directory; they propose it{urgent}.")
    return 0


def announce(settings: Settings, uses: Sequence[KeyUse], at: datetime | None, now: datetime) -> str:
    """Make a new key for each algorithm of `uses` and list it as `next`; raises OperatorError."""
    entry = read_descriptor(settings)
    for use in uses:
        if any(key["use"] == use and key["state"] == KeyState.NEXT for key in entry["keys"]):
            raise OperatorError(f"A next {use} key is announced already; `switch` is what follows.")
    begins = at or now + _NOTICE
    entry["keys"] += _made(settings, uses, KeyState.NEXT, begins, now)
    write_descriptor(settings, entry)
    return f"New keys are in {settings.keys_dir}, to count from {rfc3339(begins)} on."


def switch(settings: Settings, uses: Sequence[KeyUse], at: datetime | None, now: datetime) -> str:
    """List the announced keys as active, and those before them as retired, from one moment on; OperatorError."""
    entry = read_descriptor(settings)
    announced = [key for key in entry["keys"] if key["state"] == KeyState.NEXT and KeyUse(key["use"]) in uses]
    if not announced:
        raise OperatorError("No key is announced; `announce` is what comes first.")
    planned = max(parse_rfc3339(key["not_before"]) for key in announced)
    moment = rfc3339(at or max(planned, now + _LEAD))
    slots = {(key["use"], key["algorithm"]) for key in announced}
    for key in entry["keys"]:
        if (key["use"], key["algorithm"]) in slots and key["state"] == KeyState.ACTIVE:
            key |= {"state": KeyState.RETIRED.value, "retired_at": moment}
    for key in announced:
        key |= {"state": KeyState.ACTIVE.value, "not_before": moment}
    write_descriptor(settings, entry)
    return f"The new keys take over at {moment}; the directory that says so has to be out before."


def replace_stolen(settings: Settings, uses: Sequence[KeyUse], at: datetime | None, now: datetime) -> str:
    """List the active keys of `uses` as compromised since `at`, and new ones that count at once; OperatorError."""
    if at is None or at > now:
        raise OperatorError("Option --at says since when the keys are stolen: the last time they were surely safe.")
    entry = read_descriptor(settings)
    for key in entry["keys"]:
        if KeyUse(key["use"]) in uses and key["state"] in {KeyState.ACTIVE, KeyState.NEXT}:
            since = max(at, parse_rfc3339(key["not_before"]))
            key |= {"state": KeyState.COMPROMISED.value, "compromised_since": rfc3339(since)}
    entry["keys"] += _made(settings, uses, KeyState.ACTIVE, now, now)
    write_descriptor(settings, entry)
    return f"New keys are in {settings.keys_dir}, and count as soon as the directory lists them."


def clear(settings: Settings, now: datetime) -> int:
    """Move the files of keys that are retired or compromised out of the way; return how many."""
    over = set()
    for key in read_descriptor(settings)["keys"]:
        retired = key["state"] == KeyState.RETIRED and parse_rfc3339(key["retired_at"]) <= now
        if retired or key["state"] == KeyState.COMPROMISED:
            over.add(key["public"])
    folder = settings.keys_dir / _RETIRED
    moved = 0
    for path in sorted(settings.keys_dir.glob("*.key")):
        if _public(read_key(path).key.public().raw) in over:
            folder.mkdir(mode=0o700, exist_ok=True)
            path.rename(folder / path.name)
            moved += 1
    load_keys(settings.keys_dir, own_slots(settings))
    return moved


def _made(
    settings: Settings, uses: Sequence[KeyUse], state: KeyState, begins: datetime, now: datetime
) -> list[dict[str, Any]]:
    made = []
    for use, algorithm in own_slots(settings):
        if use in uses:
            stored = create_key(settings.keys_dir, use, algorithm, now)
            made.append(
                {
                    "use": use.value,
                    "algorithm": algorithm.value,
                    "public": _public(stored.key.public().raw),
                    "state": state.value,
                    "not_before": rfc3339(begins),
                    "retired_at": None,
                    "compromised_since": None,
                }
            )
    return made


def _public(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _time(text: str) -> datetime:
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise OperatorError("Option --at is no time as 2027-01-01T12:00:00Z.") from None
