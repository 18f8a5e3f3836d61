"""The chain of custody of an item: what a transfer must show, and what makes two pieces of evidence the same.

Pure: verifies proofs under a directory and compares; never decides where an item goes, and never shows its URL.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NoReturn

from protocol.bodies import ReportBody
from protocol.codes import RecordType, StatusKind, TransferReason
from protocol.desk import open_ruling, read_ruling
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.evidence import EvidenceInvalid, read_evidence, verify_evidence
from protocol.record import Record
from protocol.steps import TRAIL_MAX, Custody, StatusBody, TransferBody

#: Of what is proven to others in a record, a transfer or a withdrawal: its proof, in base64 and with its signatures,
#: then still fits one (48 KiB).
PROVABLE_BYTES_MAX: Final = 28_672

#: An item moves for these reasons because it was found elsewhere: that needs evidence nobody in the chain had.
FOUND_ELSEWHERE: Final = frozenset({TransferReason.MOVED, TransferReason.WRONG_LOCATION})

#: From this step on (PROTOCOL section 7) a proof fails by its signatures, before it by its form.
_FIRST_SIGNATURE_STEP: Final = 5


def evidence_hash(evidence: Mapping[str, object]) -> str:
    """Return what names a piece of evidence: SHA-256 in lower-case hex over what was found, not when or by which file.

    Two answers of DNS with one set of addresses are so the same evidence, whatever two databases make of it.
    """
    return hashlib.sha256(evidence_text(evidence).encode()).hexdigest()


def evidence_text(evidence: Mapping[str, object]) -> str:
    """Return what is hashed: the addresses, sorted, where `addresses` lists them; else the whole object without `at`.

    Written as JSON without spaces, members sorted (PROTOCOL section 6, transfers).
    """
    found: object = sorted(_addresses(evidence))
    if not found:
        found = {name: value for name, value in evidence.items() if name != "at"}
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _addresses(evidence: Mapping[str, object]) -> set[str]:
    listed = evidence.get("addresses")
    if not isinstance(listed, list):
        return set()
    addresses = (one.get("ip") for one in listed if isinstance(one, dict))
    return {address for address in addresses if isinstance(address, str)}


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A transfer whose chain holds: the `report` it carries, and that report's first receiver."""

    original: Record
    first_custodian: str

    @property
    def report(self) -> ReportBody:
        """The body of the original."""
        body = self.original.body
        if not isinstance(body, ReportBody):
            raise TypeError("an original is a report")
        return body

    @property
    def reporter(self) -> str:
        """Who sent the item first."""
        return self.original.envelope.iss


def check_transfer_chain(record: Record, directory: Directory | None, *, known_to: str | None = None) -> Given:
    """Return what a transfer carries, once its original and its trail hold (PROTOCOL section 6, transfers).

    Raises ProtocolError: `too-large`, `schema-invalid` for what has not the form, `handling-violation` for an offence.
    Whether the receiver is competent, and what it holds itself, is not seen here. Without a directory no signature is
    looked at: of a record that was taken before, and is taken again after a restore. Nor is one at an original of
    `known_to`, who knows its own report by the record hash, which is then for the caller to compare.
    """
    body, envelope = record.body, record.envelope
    if not isinstance(body, TransferBody):
        raise TypeError("a transfer has a transfer's body")
    # 1. It can be proven in turn.
    if len(record.raw) > PROVABLE_BYTES_MAX:
        raise ProtocolError("too-large", f"a transfer has at most {PROVABLE_BYTES_MAX} bytes")
    # 2. The original is proven, and is the report of this very item.
    given = _original(body.original, directory, known_to)
    first = given.original.envelope
    if (first.item, first.case) != (envelope.item, envelope.case):
        _offence("body.original", "the original is the report of another item")
    # 3. Who had it: from the first reporter by its first receiver to the issuer, as many as the hops and one.
    _check_stations(record, body, given)
    # 4. What the first and the last station say stands in the records at hand.
    hosting, last = given.report.hosting, len(body.trail) - 1
    if _said(body.trail[0]) != (hosting.country, evidence_hash(hosting.evidence)):
        _offence("body.trail[0]", "this is not what the original says")
    if _said(body.trail[last]) != (body.hosting.country, evidence_hash(body.hosting.evidence)):
        _offence(f"body.trail[{last}]", "this is not what the transfer says")
    # 5. Nothing goes round on evidence that the chain has seen.
    _check_evidence(body)
    _check_ruling(record, body, directory)
    # 6. Who hands it on may not keep it longer than the first reporter allowed, nor for something else.
    if envelope.handling.retain_until > first.handling.retain_until:
        _offence("handling.retain_until", "the first reporter allowed less")
    if envelope.handling.purpose != first.handling.purpose:
        _offence("handling.purpose", "the first reporter allowed another purpose")
    return given


def check_delivered(record: Record, directory: Directory | None) -> tuple[Record, Given]:
    """Return the transfer that a `status` of kind `delivered` proves, once it holds: its issuer got the item.

    Whoever it is told to has to have reported the item, and compares the original's record hash with its own report's:
    the receipt on that may have lost its worth. Raises ProtocolError as `check_transfer_chain`, fields relative to the
    status.
    """
    body, envelope = record.body, record.envelope
    if not isinstance(body, StatusBody) or body.kind is not StatusKind.DELIVERED or body.proof is None:
        raise TypeError("this is a status that something was delivered")
    transfer, _ = _proven(body.proof, directory, "body.proof")
    if not isinstance(transfer.body, TransferBody):
        _offence("body.proof", "this is not the proof of a transfer")
    try:
        given = check_transfer_chain(transfer, directory, known_to=envelope.aud)
    except ProtocolError as error:
        raise ProtocolError(error.code, error.detail, field="body.proof") from None
    if transfer.envelope.aud != envelope.iss or body.node != envelope.iss:
        _offence("body.node", "the item was given to another node")
    if transfer.envelope.item != envelope.item:
        _offence("body.proof", "this is the transfer of another item")
    if given.original.leaf_hash.hex() != body.about:
        _offence("body.about", "the transfer carries another report")
    return transfer, given


def may_travel(trail: Sequence[Custody]) -> str | None:
    """Return why the item may not travel on with this trail, its own station last; None when it may.

    The answer is the code of a dispute: `too-many-hops` or `same-evidence`.
    """
    if len(trail) > TRAIL_MAX:
        return "too-many-hops"
    if trail[-1].evidence in {station.evidence for station in trail[:-1]}:
        return "same-evidence"
    return None


def _check_stations(record: Record, body: TransferBody, given: Given) -> None:
    envelope, nodes = record.envelope, tuple(station.node for station in body.trail)
    if nodes[:2] != (given.reporter, given.first_custodian):
        _offence("body.trail[0].node", "the trail does not begin as the original does")
    if nodes[-1] != envelope.iss:
        _offence("body.trail", "the trail does not end at the issuer")
    if nodes[1:] != envelope.hops:
        _offence("hops", "the hops are not the trail after the first reporter")
    if any(before == after for before, after in pairwise((*nodes, envelope.aud))):
        _offence("body.trail", "somebody gave the item to itself")


def _check_evidence(body: TransferBody) -> None:
    last, before = body.trail[-1], body.trail[:-1]
    seen = last.evidence in {station.evidence for station in before}
    if body.reason in FOUND_ELSEWHERE and seen:
        _offence("body.trail", "the same evidence twice in one chain is for the desk")
    stays = body.reason not in FOUND_ELSEWHERE and body.reason is not TransferReason.RULING
    if stays and seen and last.country != before[-1].country:
        _offence("body.reason", "for this reason the item stays where it is hosted")


def _check_ruling(record: Record, body: TransferBody, directory: Directory | None) -> None:
    """What goes where the desk says stands in the desk's own signed word."""
    if body.ruling is None:
        return
    try:
        raw = body.ruling.encode()
        ruling = read_ruling(raw) if directory is None else open_ruling(raw, directory)
    except ProtocolError as error:
        raise ProtocolError(error.code, error.detail, field="body.ruling") from None
    envelope = record.envelope
    if (ruling.item, ruling.custodian, ruling.country) != (envelope.item, envelope.aud, body.hosting.country):
        _offence("body.ruling", "the desk ruled something else")


def _said(station: Custody) -> tuple[str | None, str]:
    return station.country, station.evidence


def _original(proof: str, directory: Directory | None, known_to: str | None) -> Given:
    field = "body.original"
    record, first_custodian = _proven(proof, directory, field, known_to)
    if not isinstance(record.body, ReportBody) or record.envelope.type != RecordType.REPORT:
        _offence(field, "this is not the proof of a report")
    return Given(record, first_custodian)


def _proven(proof: str, directory: Directory | None, field: str, known_to: str | None = None) -> tuple[Record, str]:
    """Return the record that a proof holds and to whom it went; that of `known_to` needs no signature."""
    raw = proof.encode()
    try:
        record, _, stream = read_evidence(raw)
        if directory is not None and stream.iss != known_to:
            verify_evidence(raw, directory)
    except EvidenceInvalid as invalid:
        if invalid.step < _FIRST_SIGNATURE_STEP:
            raise ProtocolError("schema-invalid", f"the proof fails at {invalid}", field=field) from None
        _offence(field, f"the proof fails at {invalid}")
    return record, stream.aud


def _offence(field: str, sentence: str) -> NoReturn:
    raise ProtocolError("handling-violation", sentence, field=field)
