"""Merkle proofs against the vectors of transparency-dev/merkle, every file of the two folders."""

import base64
import json
from pathlib import Path
from typing import Any

from protocol.merkle import ProofInvalid, verify_consistency, verify_inclusion
from tests.vectors_dir import vectors


def cases(folder: str) -> list[tuple[Path, dict[str, Any]]]:
    root = vectors("merkle", "testdata", folder)
    return [(file.relative_to(root), json.loads(file.read_bytes())) for file in sorted(root.rglob("*.json"))]


def unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def proof_of(case: dict[str, Any]) -> list[bytes]:
    return [unbase64(one) for one in case["proof"] or ()]


def included(case: dict[str, Any]) -> bool:
    leaf, root = unbase64(case["leafHash"]), unbase64(case["root"])
    try:
        verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof_of(case), root)
    except ProofInvalid:
        return False
    return True


def consistent(case: dict[str, Any]) -> bool:
    root1, root2 = unbase64(case["root1"]), unbase64(case["root2"])
    try:
        verify_consistency(case["size1"], case["size2"], proof_of(case), root1, root2)
    except ProofInvalid:
        return False
    return True


def test_inclusion() -> None:
    found = cases("inclusion")
    wrong = [str(file) for file, case in found if included(case) == case["wantErr"]]
    assert wrong == []
    assert len(found) == 98


def test_consistency() -> None:
    found = cases("consistency")
    otherwise = [str(file) for file, case in found if consistent(case) == case["wantErr"]]
    # That library calls a proof from size 0 useless and refuses it; C2SP tlog-witness, which HX/1 follows, says the
    # empty tree is consistent with any tree, by an empty proof.
    assert otherwise == ["additional/size1-is-zero-and-size2-is-not-zero.json"]
    assert len(found) == 98
