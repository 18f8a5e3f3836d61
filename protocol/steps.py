"""What the records after a report say: their members and rules; never the envelope around them, never what they change.

As in `protocol.bodies`, each error names the member and not its value. Times are the only members whose spelling the
types do not hold; `protocol.record` does.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec

from protocol import codes
from protocol.bodies import (
    SCHEMA,
    SHORT_TEXT_BYTES_MAX,
    Hash,
    Hosting,
    Qualification,
    check_country,
    check_hashes,
    check_hosting,
    check_payment_methods,
    check_qualification,
    check_schema,
    check_text,
    check_token,
    check_url,
    invalid,
)
from protocol.checkpoint import StreamId, check_node_id
from protocol.errors import ProtocolError

#: A proof travels inside a record; the rest of the record has the remaining bytes.
PROOF_BYTES_MAX: Final = 49_152
#: A ruling is a line of JSON and two signatures, in base64.
RULING_BYTES_MAX: Final = 8192
#: A chain of custody has as many steps as a record has hops, and the one that reported.
TRAIL_MAX: Final = 6

_HEX_HASH: Final = re.compile("[0-9a-f]{64}")
_PROOF: Final = re.compile("[\x20-\x7e—\n]+")
_ROOT: Final = re.compile("[A-Za-z0-9+/]{43}=")


class AssessmentBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the issuer qualifies the item under its own law."""

    schema: int = SCHEMA
    qualification: Qualification


class ActionBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the hotline that has custody did, or found: `at` when, `by` whom; a `reason` for the last two kinds only."""

    schema: int = SCHEMA
    action: codes.Action
    at: datetime
    by: str | None = None
    reason: codes.ActionReason | None = None


class Custody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One station of an item's way: who had it, where it believed it hosted, and its evidence, as a SHA-256 in hex."""

    node: str
    country: str | None
    evidence: str
    at: datetime


class TransferBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Custody of an item goes to the audience.

    `original` is the tlog-proof (C2SP) of the `report` record as the first hotline sent it, `hosting` where the item is
    believed to be now, `trail` everybody who had it before, the first reporter first and the issuer last. `ruling` is
    the desk's signed word where the reason is one.
    """

    schema: int = SCHEMA
    reason: codes.TransferReason
    hosting: Hosting
    original: str
    trail: tuple[Custody, ...]
    qualification: Qualification | None = None
    ruling: str | None = None

    def __repr__(self) -> str:
        # The proof holds the reported URL.
        return f"TransferBody(reason={self.reason})"


class Corrected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New values of members of a report; those left out stay as they are."""

    referrer: str | None = None
    hashes: tuple[Hash, ...] | None = None
    site_type: codes.SiteType | None = None
    commerciality: codes.Commerciality | None = None
    payment_methods: tuple[codes.PaymentMethod, ...] | None = None
    reference: str | None = None

    def __repr__(self) -> str:
        # A referrer is a URL.
        return "Corrected(…)"


class CorrectionBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The issuer's `report` with this record hash said something wrong; `members` is what it should have said."""

    schema: int = SCHEMA
    corrects: str
    members: Corrected


class WithdrawalBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `report` with this record hash is taken back.

    `proof` is the tlog-proof of the first reporter's withdrawal, where a holder hands it on.
    """

    schema: int = SCHEMA
    withdraws: str
    reason: codes.WithdrawalReason
    proof: str | None = None

    def __repr__(self) -> str:
        return f"WithdrawalBody(reason={self.reason})"


class StatusBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact about the exchange itself. Which members a kind has: STATUS_MEMBERS.

    `about` is a record hash, `node` a node id, `code` a token, `proof` a tlog-proof; `stream`, `size` and `root`
    (base64) name a checkpoint; `since` and `attempts` say how long and how often something was tried.
    """

    schema: int = SCHEMA
    kind: codes.StatusKind
    at: datetime
    about: str | None = None
    node: str | None = None
    code: str | None = None
    proof: str | None = None
    stream: str | None = None
    size: int | None = None
    root: str | None = None
    since: datetime | None = None
    attempts: int | None = None

    def __repr__(self) -> str:
        return f"StatusBody(kind={self.kind})"


Step = AssessmentBody | ActionBody | TransferBody | CorrectionBody | WithdrawalBody | StatusBody

#: The members each kind of status has beside `schema`, `kind` and `at`; all are required, and no others may stand.
STATUS_MEMBERS: Final[Mapping[codes.StatusKind, frozenset[str]]] = MappingProxyType(
    {
        codes.StatusKind.DELIVERED: frozenset({"about", "node", "proof"}),
        codes.StatusKind.FINAL: frozenset({"about", "code"}),
        codes.StatusKind.RELAY_FAILURE: frozenset({"about", "node", "code", "since", "attempts"}),
        codes.StatusKind.DISPUTED: frozenset({"about", "code"}),
        codes.StatusKind.EPOCH: frozenset({"stream", "size", "root"}),
    }
)
_STATUS_OPTIONAL: Final = ("about", "node", "code", "proof", "stream", "size", "root", "since", "attempts")


def check_assessment(body: AssessmentBody) -> None:
    """Raise ProtocolError `schema-invalid` for what the types alone do not rule out."""
    check_schema(body.schema)
    check_qualification(body.qualification)


def check_action(body: ActionBody) -> None:
    """Raise ProtocolError `schema-invalid`: as `check_assessment`; a reason goes with the actions that need one."""
    check_schema(body.schema)
    if body.by is not None:
        check_text(body.by, "body.by", SHORT_TEXT_BYTES_MAX)
    if (body.reason is not None) and body.action not in codes.REASONED_ACTIONS:
        invalid("body.reason", "this action has no reason")


def check_transfer(body: TransferBody) -> None:
    """Raise ProtocolError `schema-invalid`: as `check_assessment`. What the proof is worth is not seen here."""
    check_schema(body.schema)
    check_hosting(body.hosting)
    _check_proof(body.original, "body.original")
    if not 1 <= len(body.trail) <= TRAIL_MAX:
        invalid("body.trail", f"the trail has 1 to {TRAIL_MAX} stations")
    for number, station in enumerate(body.trail):
        field = f"body.trail[{number}]"
        _check_node(station.node, f"{field}.node")
        if station.country is not None:
            check_country(station.country, f"{field}.country")
        _check_hash(station.evidence, f"{field}.evidence")
    if body.qualification is not None:
        check_qualification(body.qualification)
    if (body.ruling is not None) is not (body.reason is codes.TransferReason.RULING):
        invalid("body.ruling", "a ruling stands where it is the reason, and nowhere else")
    if body.ruling is not None and (not _PROOF.fullmatch(body.ruling) or len(body.ruling.encode()) > RULING_BYTES_MAX):
        invalid("body.ruling", f"this is not a signed ruling of at most {RULING_BYTES_MAX} bytes")


def check_correction(body: CorrectionBody) -> None:
    """Raise ProtocolError `schema-invalid`: as `check_assessment`; something is corrected."""
    check_schema(body.schema)
    _check_hash(body.corrects, "body.corrects")
    members = body.members
    if members == Corrected():
        invalid("body.members", "nothing is corrected")
    if members.referrer is not None:
        check_url(members.referrer, "body.members.referrer")
    if members.hashes is not None:
        check_hashes(members.hashes, "body.members.hashes")
    if members.payment_methods is not None:
        check_payment_methods(members.payment_methods, "body.members.payment_methods")
    if members.reference is not None:
        check_text(members.reference, "body.members.reference", SHORT_TEXT_BYTES_MAX)


def check_withdrawal(body: WithdrawalBody) -> None:
    """Raise ProtocolError `schema-invalid`: as `check_assessment`."""
    check_schema(body.schema)
    _check_hash(body.withdraws, "body.withdraws")
    if body.proof is not None:
        _check_proof(body.proof, "body.proof")


def check_status(body: StatusBody) -> None:
    """Raise ProtocolError `schema-invalid`: as `check_assessment`; the members are exactly those of the kind."""
    check_schema(body.schema)
    wanted = STATUS_MEMBERS[body.kind]
    for name in _STATUS_OPTIONAL:
        if (getattr(body, name) is not None) is not (name in wanted):
            invalid(
                f"body.{name}", "a status of this kind " + ("has this member" if name in wanted else "has none such")
            )
    if body.about is not None:
        _check_hash(body.about, "body.about")
    if body.node is not None:
        _check_node(body.node, "body.node")
    if body.code is not None:
        check_token(body.code, "body.code")
    if body.proof is not None:
        _check_proof(body.proof, "body.proof")
    if body.attempts is not None and body.attempts < 0:
        invalid("body.attempts", "this is not a count")
    _check_checkpoint(body)


def _check_checkpoint(body: StatusBody) -> None:
    if body.stream is not None:
        try:
            StreamId.parse(body.stream)
        except ProtocolError:
            invalid("body.stream", "this is not the origin of an HX/1 stream")
    if body.size is not None and body.size < 0:
        invalid("body.size", "this is not the size of a log")
    if body.root is not None and not _ROOT.fullmatch(body.root):
        invalid("body.root", "this is not a root in base64")


def _check_proof(text: str, field: str) -> None:
    # Signature lines begin with an em dash of three bytes; no member comes near the limit with those alone.
    if not _PROOF.fullmatch(text) or len(text.encode()) > PROOF_BYTES_MAX:
        invalid(field, f"this is not a tlog-proof of at most {PROOF_BYTES_MAX} bytes")


def _check_hash(text: str, field: str) -> None:
    if not _HEX_HASH.fullmatch(text):
        invalid(field, "this is not a SHA-256 hash in lower-case hex")


def _check_node(node_id: str, field: str) -> None:
    try:
        check_node_id(node_id, field=field)
    except ProtocolError as error:
        invalid(field, error.detail)


#: The paths of times in each body, within it; those of a trail are checked by their index.
STEP_TIMES: Final[Mapping[type[Step], tuple[tuple[str, ...], ...]]] = MappingProxyType(
    {
        AssessmentBody: (("qualification", "at"),),
        ActionBody: (("at",),),
        TransferBody: (("qualification", "at"), *(("trail", str(number), "at") for number in range(TRAIL_MAX))),
        CorrectionBody: (),
        WithdrawalBody: (),
        StatusBody: (("at",), ("since",)),
    }
)

STEP_TYPES: Final[Mapping[codes.RecordType, type[Step]]] = MappingProxyType(
    {
        codes.RecordType.ASSESSMENT: AssessmentBody,
        codes.RecordType.ACTION: ActionBody,
        codes.RecordType.TRANSFER: TransferBody,
        codes.RecordType.CORRECTION: CorrectionBody,
        codes.RecordType.WITHDRAWAL: WithdrawalBody,
        codes.RecordType.STATUS: StatusBody,
    }
)

_CHECKS: Final[Mapping[type, Callable[..., None]]] = MappingProxyType(
    {
        AssessmentBody: check_assessment,
        ActionBody: check_action,
        TransferBody: check_transfer,
        CorrectionBody: check_correction,
        WithdrawalBody: check_withdrawal,
        StatusBody: check_status,
    }
)


def check_step(body: Step) -> None:
    """Raise ProtocolError `schema-invalid` for what the types of a step alone do not rule out."""
    _CHECKS[type(body)](body)


def step_type(body: Step) -> codes.RecordType:
    """Return the record type that a body belongs to."""
    return next(name for name, kind in STEP_TYPES.items() if type(body) is kind)
