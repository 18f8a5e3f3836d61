"""Checks of section 4, how a request is verified: each step by its failure, and the order of the steps."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from node.conformance.checks import (
    OK,
    Check,
    NotRun,
    Run,
    expect_problem,
    fail,
    own_stream,
    said,
    stranger_key,
)
from node.conformance.speaker import COMPONENTS, Change, with_body, with_headers, without
from protocol.keys import KeyState, KeyUse
from protocol.profile import SIGNATURE_INPUT_BYTES_MAX, Request

_PAST_S: Final = -400
_FUTURE_S: Final = 400
_FORGED: Final = "hx=:" + "A" * 86 + "==:"
_SECTION: Final = "4. HTTP profile, step"


# The steps of a request's verification.


def _refused(code: str, make: Callable[[Run], dict[str, Any]], **members: object) -> Callable[[Run], Awaitable[None]]:
    """A signed GET, spoiled by the arguments that `make` returns, is answered with the problem."""

    async def run_check(run: Run) -> None:
        expect_problem(await run.get(own_stream(run), **make(run)), code, **members)

    return run_check


def _after(change: Change) -> Callable[[Run], dict[str, Any]]:
    return lambda _run: {"after": change}


def _again(*, components: tuple[str, ...] | None = None, **parameters: Any) -> Callable[[Run], dict[str, Any]]:
    return lambda run: {"after": run.speaker.resigned(components=components, **parameters)}


def _spare(state: KeyState) -> Callable[[Run], dict[str, Any]]:
    def make(run: Run) -> dict[str, Any]:
        key = run.member.spare[state]
        entry = run.exchange.directory.nodes[run.speaker.id]
        if not any(one.public == key.public() and one.state is state for one in entry.keys):
            raise NotRun(f"the directory does not list the member's {state} key")
        return {"key": key}

    return make


def _batch_refused(code: str, after: Callable[[Run], Change]) -> Callable[[Run], Awaitable[None]]:
    """A good batch in a request that is spoiled after it was signed is answered with the problem."""

    async def run_check(run: Run) -> None:
        expect_problem(await run.put(run.speaker.batch(1), after=after(run)), code)

    return run_check


async def _expires_late(run: Run) -> None:
    late = int(run.speaker.now().timestamp()) + 3600
    expect_problem(await run.get(own_stream(run), after=run.speaker.resigned(expires=late)), "malformed")


async def _other_host(run: Run) -> None:
    target = run.speaker.target_url

    def signed_for(old: str, new: str) -> Change:
        return lambda request: replace(request, target_uri=request.target_uri.replace(old, new, 1))

    other = "https://other.hotline.example"
    answer = await run.get(own_stream(run), before=signed_for(target, other), after=signed_for(other, target))
    expect_problem(answer, "bad-signature")


async def _digest_malformed(run: Run) -> None:
    no_known = with_headers(content_digest="md5=:AAAAAAAAAAAAAAAAAAAAAA==:")
    resigned = run.speaker.resigned()
    answer = await run.put(run.speaker.batch(1), after=lambda request: resigned(no_known(request)))
    expect_problem(answer, "malformed")


async def _second_digest(run: Run) -> None:
    resigned = run.speaker.resigned()

    def two(request: Request) -> Request:
        return with_headers(content_digest=f"{request.headers['content-digest']}, sha-512=:AA==:")(request)

    answer = await run.put(run.speaker.batch(1), after=lambda request: resigned(two(request)))
    expect_problem(answer, "digest-mismatch")


async def _replayed(run: Run) -> None:
    request = run.speaker.signed("GET", own_stream(run))
    first = await run.exchange.send(request)
    if first.members().get("code") is not None:
        raise NotRun(f"the request was answered {said(first)} the first time")
    expect_problem(await run.exchange.send(request), "replay")


async def _replayed_batch(run: Run) -> None:
    batch = run.speaker.batch(1)
    request = run.speaker.signed("PUT", run.speaker.inbox_path(batch.first), batch.body)
    run.log.keep([*run.speaker.taken, *batch.records])
    first = await run.exchange.send(request)
    if first.status != OK:
        raise NotRun(f"the batch was answered {said(first)} the first time")
    run.took(batch, first)
    expect_problem(await run.exchange.send(request), "replay")


async def _nonce_kept(run: Run) -> None:
    """A request that was refused before its nonce counted may be sent again as it is."""
    request = run.speaker.signed("GET", own_stream(run), after=with_headers(hx_version="2"))
    expect_problem(await run.exchange.send(request), "malformed")
    answer = await run.exchange.send(with_headers(hx_version="1")(request))
    if answer.members().get("code") == "replay":
        fail("a request that was refused used up its nonce")


def _order(code: str, make: Callable[[Run], dict[str, Any]]) -> Callable[[Run], Awaitable[None]]:
    """A batch in a request that breaks two steps is refused for the earlier."""

    async def run_check(run: Run) -> None:
        expect_problem(await run.put(run.speaker.batch(1), **make(run)), code)

    return run_check


_UNSIGNED: Final = without("signature", "signature-input")


def _old(run: Run) -> dict[str, Any]:
    created = int(run.speaker.now().timestamp()) + _PAST_S
    return {"created": created, "expires": created + 60}


STEP_CHECKS: Final = (
    Check(
        "unsigned",
        f"{_SECTION} 1",
        "a request without a signature",
        "401 bad-signature",
        _refused("bad-signature", _after(_UNSIGNED)),
    ),
    Check(
        "no-version",
        f"{_SECTION} 1",
        "a request without HX-Version",
        "400 malformed",
        _refused("malformed", _after(without("hx-version"))),
    ),
    Check(
        "other-version",
        f"{_SECTION} 1",
        "a request with HX-Version 2",
        "400 malformed",
        _refused("malformed", _after(with_headers(hx_version="2"))),
    ),
    Check(
        "no-structured-field",
        f"{_SECTION} 1",
        "a Signature that is no structured field",
        "400 malformed",
        _refused("malformed", _after(with_headers(signature="a, b"))),
    ),
    Check(
        "not-canonical",
        f"{_SECTION} 1",
        "a Signature-Input with a space too many",
        "400 malformed",
        _refused(
            "malformed",
            _after(lambda one: with_headers(signature_input=one.headers["signature-input"].replace(";", "; ", 1))(one)),
        ),
    ),
    Check(
        "two-signatures",
        f"{_SECTION} 1",
        "a request with two signatures",
        "400 malformed",
        _refused(
            "malformed",
            _after(
                lambda one: with_headers(
                    signature=f"{one.headers['signature']}, b{one.headers['signature']}",
                    signature_input=f"{one.headers['signature-input']}, b{one.headers['signature-input']}",
                )(one)
            ),
        ),
    ),
    Check(
        "long-signature-input",
        f"{_SECTION} 1",
        "a Signature-Input of more than 2,048 bytes",
        "400 malformed",
        _refused(
            "malformed",
            _after(
                lambda one: with_headers(
                    signature_input=one.headers["signature-input"] + "x" * SIGNATURE_INPUT_BYTES_MAX
                )(one)
            ),
        ),
    ),
    Check(
        "unknown-parameter",
        f"{_SECTION} 1",
        "a signature with a parameter of its own",
        "400 malformed",
        _refused("malformed", _again(novelty="1")),
    ),
    Check(
        "short-nonce",
        f"{_SECTION} 1",
        "a nonce of 3 bytes",
        "400 malformed",
        _refused("malformed", _again(nonce="AAAA")),
    ),
    Check("long-life", f"{_SECTION} 1", "a signature that is good for an hour", "400 malformed", _expires_late),
    Check(
        "other-tag",
        f"{_SECTION} 2",
        "a signature made for another application",
        "401 bad-signature",
        _refused("bad-signature", _again(tag="other")),
    ),
    *(
        Check(
            "not-covered-" + left_out.strip('"@'),
            f"{_SECTION} 3",
            f"a batch whose signature does not cover {left_out}",
            "401 bad-signature",
            _batch_refused(
                "bad-signature",
                lambda run, left_out=left_out: run.speaker.resigned(  # type: ignore[misc]
                    components=tuple(one for one in COMPONENTS if one != left_out)
                ),
            ),
        )
        for left_out in COMPONENTS
    ),
    Check(
        "from-the-past",
        f"{_SECTION} 4",
        "a signature made 400 s ago",
        "401 clock-skew with server_time",
        _refused("clock-skew", lambda _run: {"shift_s": _PAST_S}, server_time=str),
    ),
    Check(
        "from-the-future",
        f"{_SECTION} 4",
        "a signature made in 400 s",
        "401 clock-skew with server_time",
        _refused("clock-skew", lambda _run: {"shift_s": _FUTURE_S}, server_time=str),
    ),
    Check(
        "unknown-key",
        f"{_SECTION} 5",
        "a signature by a key that the directory does not list",
        "401 unknown-key",
        _refused("unknown-key", lambda _run: {"key": stranger_key()}),
    ),
    Check(
        "stream-key",
        f"{_SECTION} 5",
        "a request signed with a stream key of ours",
        "401 unknown-key",
        _refused("unknown-key", lambda run: {"key": run.speaker.keys.signing(KeyUse.STREAM)[0]}),
    ),
    Check(
        "next-key",
        f"{_SECTION} 5",
        "a signature by our next key",
        "401 unknown-key",
        _refused("unknown-key", _spare(KeyState.NEXT)),
    ),
    Check(
        "retired-key",
        f"{_SECTION} 5",
        "a signature by our retired key",
        "403 key-revoked",
        _refused("key-revoked", _spare(KeyState.RETIRED)),
    ),
    Check(
        "compromised-key",
        f"{_SECTION} 5",
        "a signature by our compromised key",
        "403 key-revoked",
        _refused("key-revoked", _spare(KeyState.COMPROMISED)),
    ),
    Check(
        "other-algorithm",
        f"{_SECTION} 5",
        "an alg that is not the key's",
        "401 bad-signature",
        _refused("bad-signature", _again(alg="ml-dsa-44")),
    ),
    Check(
        "forged-signature",
        f"{_SECTION} 6",
        "a signature that does not verify",
        "401 bad-signature",
        _refused("bad-signature", _after(with_headers(signature=_FORGED))),
    ),
    Check(
        "signed-for-another-host",
        f"{_SECTION} 6",
        "a request signed for another base address",
        "401 bad-signature",
        _other_host,
    ),
    Check(
        "altered-body",
        f"{_SECTION} 7",
        "a body that is not the one signed",
        "400 digest-mismatch",
        _batch_refused("digest-mismatch", lambda _run: lambda one: with_body(one.body + b"x")(one)),
    ),
    Check(
        "one-of-two-digests",
        f"{_SECTION} 7",
        "two digests, one of them wrong",
        "400 digest-mismatch",
        _second_digest,
    ),
    Check(
        "no-known-digest",
        f"{_SECTION} 7",
        "a Content-Digest without SHA-256 or SHA-512",
        "400 malformed",
        _digest_malformed,
    ),
    Check("replay", "4. HTTP profile", "the same request twice", "409 replay", _replayed),
    Check("replay-of-a-batch", "4. HTTP profile", "the same batch under the same nonce", "409 replay", _replayed_batch),
    Check(
        "nonce-of-a-refused-request",
        "4. HTTP profile",
        "a request anew that was malformed before",
        "no replay",
        _nonce_kept,
    ),
    Check(
        "order-tag-before-time",
        f"{_SECTION} 2",
        "another tag, made 400 s ago",
        "401 bad-signature",
        _order("bad-signature", lambda run: {"after": run.speaker.resigned(tag="other", **_old(run))}),
    ),
    Check(
        "order-components-before-time",
        f"{_SECTION} 3",
        "a component missing, made 400 s ago",
        "401 bad-signature",
        _order("bad-signature", lambda run: {"after": run.speaker.resigned(components=COMPONENTS[1:], **_old(run))}),
    ),
    Check(
        "order-time-before-key",
        f"{_SECTION} 4",
        "an unknown key, made 400 s ago",
        "401 clock-skew",
        _order("clock-skew", lambda _run: {"shift_s": _PAST_S, "key": stranger_key()}),
    ),
    Check(
        "order-key-before-signature",
        f"{_SECTION} 5",
        "an unknown key and a forged signature",
        "401 unknown-key",
        _order("unknown-key", lambda _run: {"key": stranger_key(), "after": with_headers(signature=_FORGED)}),
    ),
    Check(
        "order-signature-before-body",
        f"{_SECTION} 6",
        "a forged signature and another body",
        "401 bad-signature",
        _order(
            "bad-signature", lambda _run: {"after": lambda one: with_body(b"x")(with_headers(signature=_FORGED)(one))}
        ),
    ),
)
