"""A member that really signs, and says what it is told to, wrong things too; never sends, and never decides.

It keeps its own log of the stream to one node, and makes records, batches and signed requests of it.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from node.platform.ids import new_id
from node.platform.keyfiles import NodeKeys
from protocol.batch import MEDIA_TYPE, encode_batch
from protocol.bodies import Hosting, OutcomeBody, Qualification, Refusal, ReportBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import Channel, Classification, Kind
from protocol.cosignature import sign_checkpoint
from protocol.digest import content_digest
from protocol.httpsig import (
    RequestContext,
    SignatureInput,
    format_signature_inputs,
    format_signatures,
    parse_signature_input,
    signature_base,
)
from protocol.keys import KeyUse, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.profile import LABEL, LIFETIME_S_MAX, NONCE_BYTES, TAG, VERSION, Request, sign_request
from protocol.record import Handling, encode_outcome, encode_report, encode_step, parse_record
from protocol.steps import Step

RETAIN: Final = timedelta(days=30)
#: What a request with a body has to cover, as Signature-Input writes it.
COMPONENTS: Final = ('"@method"', '"@target-uri"', '"content-type"', '"content-digest"', '"hx-version"')

#: Changes a request on its way; used before or after it is signed.
Change = Callable[[Request], Request]


def fresh_nonce() -> str:
    """Return a nonce that nobody has used."""
    return base64.b64encode(os.urandom(NONCE_BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it will be sent; `dataclasses.replace` spoils any part of it."""

    first: int
    records: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: bytes
    framed: bytes | None = None

    @property
    def body(self) -> bytes:
        """The bytes that are sent: an honest frame unless another is given."""
        return encode_batch(self.note, self.records) if self.framed is None else self.framed


@dataclass(slots=True)
class Speaker:
    """One member of the directory and its stream to the node `target_id`, which is at `target_url`.

    `taken` is its log as far as the target has receipted it; `target_country` is one that the target serves.
    """

    id: str
    keys: NodeKeys
    target_id: str
    target_url: str
    target_country: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    epoch: int = 1
    taken: list[bytes] = field(default_factory=list)

    @property
    def stream(self) -> StreamId:
        """Our stream to the target."""
        return StreamId(self.id, self.target_id, self.epoch)

    # Records.

    def report(self, *, url: str = "", country: str = "", evidence_bytes: int = 0, **envelope: Any) -> bytes:
        """Return a good report to the target; `envelope` are further arguments of `encode_report`."""
        now = self.now()
        assigned = country or self.target_country
        evidence: dict[str, object] = {"padding": "x" * evidence_bytes} if evidence_bytes else {}
        body = ReportBody(
            url=url or f"http://{new_id(now)}.host.example/page",
            kind=Kind.PAGE,
            channel=Channel.PUBLIC,
            received_at=now,
            qualification=Qualification(classification=Classification.NATIONAL, at=now),
            hosting=Hosting(
                country=assigned,
                assigned_country=assigned,
                confidence=90,
                reasons=("databases-agree",),
                evidence=evidence,
            ),
        )
        made = {
            "record_id": str(new_id(now)),
            "case": str(new_id(now)),
            "item": str(new_id(now)),
            "iss": self.id,
            "aud": self.target_id,
            "iat": now,
            "handling": Handling("takedown", now + RETAIN),
            "deliver_by": now + RETAIN,
            **envelope,
        }
        return encode_report(body, **made)

    def spoiled(self, **members: Any) -> bytes:
        """Return a report that no honest encoder makes: members of the envelope, or `body__<name>`, set otherwise."""
        return changed(self.report(), **members)

    def step(self, body: Step, *, about: bytes, **envelope: Any) -> bytes:
        """Return a record that follows the report `about`; `envelope` are further arguments of `encode_step`."""
        report, now = parse_record(about), self.now()
        made = {
            "record_id": str(new_id(now)),
            "case": report.envelope.case,
            "item": report.envelope.item,
            "iss": self.id,
            "aud": self.target_id,
            "iat": now,
            "handling": Handling("takedown", now + RETAIN),
            "parent": report.leaf_hash.hex(),
            **envelope,
        }
        return encode_step(body, **made)

    def outcome(
        self,
        *,
        accepted: Sequence[tuple[int, int]] = (),
        kept: Sequence[tuple[int, int]] = (),
        refused: Sequence[tuple[int, str]] = (),
        stream: StreamId | None = None,
    ) -> bytes:
        """Return an outcome about the target's stream to us: ranges accepted and kept, (index, code) refused."""
        now = self.now()
        told = stream or StreamId(self.target_id, self.id, 1)
        body = OutcomeBody(
            stream=told.origin(),
            accepted=tuple(accepted),
            kept=tuple(kept),
            refused=tuple(Refusal(index=idx, id=None, code=code, detail="not taken here") for idx, code in refused),
        )
        handling = Handling("takedown", now + RETAIN)
        return encode_outcome(
            body, record_id=str(new_id(now)), iss=self.id, aud=self.target_id, iat=now, handling=handling
        )

    def reports(self, count: int) -> list[bytes]:
        """Return so many good reports."""
        return [self.report() for _ in range(count)]

    # Batches.

    def batch(
        self,
        records: Sequence[bytes] | int = 1,
        *,
        first: int | None = None,
        origin: str | None = None,
        size: int | None = None,
        root: bytes | None = None,
        keys: Sequence[SigningKey] | None = None,
        history: Sequence[bytes] | None = None,
    ) -> Batch:
        """Return the next records (or so many fresh ones) after what is taken; each part can be given another value."""
        said = tuple(self.reports(records) if isinstance(records, int) else records)
        before = list(self.taken if history is None else history)
        start = len(before) if first is None else first
        edge = Edge.EMPTY.extend(leaf_hash(one) for one in [*before[:start], *said])
        checkpoint = Checkpoint(
            origin or self.stream.origin(),
            edge.size if size is None else size,
            edge.root() if root is None else root,
        )
        return Batch(start, said, checkpoint, self.sign(checkpoint, keys))

    def cut(self, first: int, end: int) -> Batch:
        """Return a batch of what is taken already, in any cut."""
        return self.batch(self.taken[first:end], first=first)

    def ahead(self, gap: int, records: int = 1) -> Batch:
        """Return a batch that leaves out `gap` records of our log."""
        between = self.reports(gap)
        return self.batch(records, history=[*self.taken, *between])

    def sign(self, checkpoint: Checkpoint, keys: Sequence[SigningKey] | None = None) -> bytes:
        """Return the note of a checkpoint, signed with our stream keys or with others."""
        stream_keys = self.keys.signing(KeyUse.STREAM) if keys is None else keys
        return sign_checkpoint(checkpoint, stream_keys, now_s=int(self.now().timestamp())).to_bytes()

    # Requests.

    def inbox_path(self, first: int | str, *, iss: str | None = None, epoch: int | str | None = None) -> str:
        """Return where a batch from index `first` on is put."""
        return f"/peer/v1/inbox/{iss or self.id}/{self.epoch if epoch is None else epoch}/{first}"

    def signed(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        key: SigningKey | None = None,
        shift_s: int = 0,
        nonce: str | None = None,
        before: Change | None = None,
        after: Change | None = None,
        **signing: Any,
    ) -> Request:
        """Return a signed request to the target.

        `key` signs instead of our http key, `shift_s` moves `created`, `before` changes the request before it is
        signed, `after` once it is; `signing` are further arguments of `sign_request`.
        """
        headers = {"content-type": MEDIA_TYPE} if body or method == "PUT" else {}
        request = Request(method, self.target_url + path, headers, body)
        request = request if before is None else before(request)
        created = int(self.now().timestamp()) + shift_s
        with_headers = sign_request(
            request, key or self.keys.http, created=created, nonce=nonce or fresh_nonce(), **signing
        )
        request = request.adding(with_headers)
        return request if after is None else after(request)

    def resigned(self, *, components: Sequence[str] | None = None, **parameters: Any) -> Change:
        """Return a change that signs a request again, truly, but over other components or with other parameters."""
        now = int(self.now().timestamp())
        values = {
            "created": now,
            "expires": now + LIFETIME_S_MAX,
            "nonce": fresh_nonce(),
            "keyid": self.keys.http.public().thumbprint(),
            "alg": self.keys.http.algorithm.value,
            "tag": TAG,
            **parameters,
        }
        return lambda request: forged(request, components=components, parameters=values, key=self.keys.http)


def forged(
    req: Request,
    *,
    components: Sequence[str] | None = None,
    parameters: Mapping[str, Any],
    label: str = LABEL,
    key: SigningKey,
) -> Request:
    """Return a request with a true signature over whatever it is told to cover, as a misbehaving peer would make it.

    `components` are those a request has to cover, unless said otherwise; a parameter of None is left out.
    """
    headers = {"hx-version": VERSION, **req.headers}
    if req.body:
        headers = {"content-digest": content_digest(req.body), **headers}
    names = components
    if names is None:
        names = COMPONENTS if "content-digest" in headers else (COMPONENTS[0], COMPONENTS[1], COMPONENTS[4])
    covered = parse_signature_input(f"x=({' '.join(names)})")["x"].components
    wanted = SignatureInput(covered, tuple((name, value) for name, value in parameters.items() if value is not None))
    context = RequestContext({name: (value,) for name, value in headers.items()}, req.method, req.target_uri)
    signature = key.sign(signature_base(wanted, context))
    headers["signature-input"] = format_signature_inputs({label: wanted})
    headers["signature"] = format_signatures({label: signature})
    return replace(req, headers=headers)


def changed(record: bytes, **members: Any) -> bytes:
    """Return a record with members of the envelope, or `body__<name>`, set to other values."""
    tree = json.loads(record)
    for path, value in members.items():
        *above, name = path.split("__")
        place = tree
        for part in above:
            place = place[part]
        place[name] = value
    return json.dumps(tree, separators=(",", ":")).encode()


def without(*names: str) -> Change:
    """Take headers away."""

    def change(request: Request) -> Request:
        return replace(request, headers={name: value for name, value in request.headers.items() if name not in names})

    return change


def with_headers(**values: str) -> Change:
    """Put other values in headers; underscores stand for hyphens."""
    return lambda request: request.adding({name.replace("_", "-"): value for name, value in values.items()})


def with_body(body: bytes) -> Change:
    """Put another body in."""
    return lambda request: replace(request, body=body)
