"""Keys against the vectors of Wycheproof and CCTV."""

import json
from typing import Any

import pytest

from protocol.errors import ProtocolError
from protocol.keys import Algorithm, PublicKey, SignatureInvalid, SigningKey
from tests.vectors_dir import vectors


def load(*parts: str) -> Any:
    return json.loads(vectors(*parts).read_bytes())


def accepts(algorithm: Algorithm, public: str, signature: str, message: bytes) -> bool:
    """Say whether the key can exist and the signature verifies under it; any other error fails the test."""
    try:
        PublicKey(algorithm, bytes.fromhex(public)).verify(bytes.fromhex(signature), message)
    except (ProtocolError, SignatureInvalid):
        return False
    return True


def test_wycheproof_ed25519() -> None:
    document = load("wycheproof", "ed25519_test.json")
    seen = 0
    for group in document["testGroups"]:
        for test in group["tests"]:
            message = bytes.fromhex(test["msg"])
            accepted = accepts(Algorithm.ED25519, group["publicKey"]["pk"], test["sig"], message)
            assert accepted == (test["result"] == "valid"), test["tcId"]
            seen += 1
    assert seen == document["numberOfTests"] == 151


def test_wycheproof_ml_dsa_44_verify() -> None:
    # HX/1 signs with an empty context, so a signature under any other context is one over another message.
    document = load("wycheproof", "mldsa_44_verify_test.json")
    seen = with_context = 0
    for group in document["testGroups"]:
        for test in group["tests"]:
            context = test.get("ctx", "")
            valid_here = test["result"] == "valid" and not context
            accepted = accepts(Algorithm.ML_DSA_44, group["publicKey"], test["sig"], bytes.fromhex(test["msg"]))
            assert accepted == valid_here, test["tcId"]
            with_context += bool(context)
            seen += 1
    assert (seen, with_context) == (document["numberOfTests"], 7)
    assert seen == 180


def test_wycheproof_ml_dsa_44_seeds_and_signatures() -> None:
    # The library signs hedged, so the signatures of the vectors are verified, not repeated.
    document = load("wycheproof", "mldsa_44_sign_seed_test.json")
    counts = {"seed refused": 0, "verified": 0, "under a context": 0, "no message": 0}
    for group in document["testGroups"]:
        for test in group["tests"]:
            seed = bytes.fromhex(group["privateSeed"])
            if "IncorrectPrivateKeyLength" in test["flags"]:
                with pytest.raises(ValueError, match="32 bytes"):
                    SigningKey(Algorithm.ML_DSA_44, seed)
                counts["seed refused"] += 1
                continue
            key = SigningKey(Algorithm.ML_DSA_44, seed)
            assert key.public().raw.hex() == group["publicKey"], test["tcId"]
            if "msg" not in test:
                # Sign_internal over a ready-made mu: no door of ours takes one.
                counts["no message"] += 1
                continue
            message = bytes.fromhex(test["msg"])
            key.public().verify(key.sign(message), message)
            context = test.get("ctx", "")
            accepted = accepts(Algorithm.ML_DSA_44, group["publicKey"], test["sig"], message)
            assert accepted == (test["result"] == "valid" and not context), test["tcId"]
            counts["under a context" if context else "verified"] += 1
    assert sum(counts.values()) == document["numberOfTests"]
    assert counts == {"seed refused": 3, "verified": 71, "under a context": 4, "no message": 8}


def test_cctv_ed25519_edge_cases() -> None:
    """State exactly which of the signatures that implementations disagree on are accepted here.

    Refused: a key of small order (and with it every non-canonical key in the set), a non-canonical R, and whatever
    holds only when both sides are multiplied by the cofactor. Accepted: a canonical R of small order, and a key or R
    that has a small-order component beside its large one, as long as the equation holds without the cofactor.
    """
    refused = {"low_order_A", "non_canonical_A", "non_canonical_R", "low_order_residue"}
    accepted_flags = set()
    cases = load("cctv", "ed25519vectors.json")
    for case in cases:
        flags = frozenset(case["flags"] or ())
        accepted = accepts(Algorithm.ED25519, case["key"], case["sig"], case["msg"].encode())
        assert accepted == (not flags & refused), case["number"]
        if accepted:
            accepted_flags.add(flags)
    assert len(cases) == 914
    components = frozenset({"low_order_component_R", "low_order_component_A"})
    assert accepted_flags == {
        frozenset(),
        frozenset({"low_order_R"}),
        frozenset({"low_order_component_A"}),
        frozenset({"low_order_R", "low_order_component_A"}),
        components,
        components | {"low_order_R"},
    }


def test_cctv_small_order_keys_cannot_exist() -> None:
    keys = {case["key"] for case in load("cctv", "ed25519vectors.json") if "low_order_A" in (case["flags"] or ())}
    assert len(keys) == 14
    for public in keys:
        with pytest.raises(ProtocolError):
            PublicKey(Algorithm.ED25519, bytes.fromhex(public))
