"""Two nodes from `hotline init` to a proof that a third party checks, every step a command."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from node.settings import load_settings
from protocol.tlogproof import TlogProof, parse_tlog_proof
from tests.cli.conftest import Home, Hotline, NewHome, Signers, command, environment
from tests.cli.test_init import sql


@contextmanager
def serving(home: Home) -> Iterator["subprocess.Popen[str]"]:
    """Run `hotline serve` until the block ends, then end it as an operator would."""
    with subprocess.Popen(
        command("--settings", home.settings, "serve"), stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            rest = process.stderr.read()
        assert process.wait() == 0
        assert "serve.end" in rest


def wait_for(process: "subprocess.Popen[str]", action: str) -> None:
    """Read the program's log until it tells of `action`."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if json.loads(line).get("action") == action:
            return
    raise AssertionError("".join(said))


def test_a_report_its_receipt_and_its_proof(
    hotline: Hotline, new_home: NewHome, signers: Signers, tmp_path: Path
) -> None:
    fr, nl = new_home("FR"), new_home("NL")
    pin = signers.begin(*(home.data / "descriptor.json" for home in (fr, nl)))
    for home in (fr, nl):
        said = hotline("--settings", home.settings, "join", signers.repository, "--root-fingerprint", pin)
        assert said.status == 0, said.err
        assert f"{home.id} is listed: state active" in said.out
    file = tmp_path / "reports.csv"
    rows = ["url,classification", "https://198.51.100.1/secret,national", "https://192.0.2.1/secret,national"]
    file.write_text("\n".join(rows))
    assert hotline("--settings", fr.settings, "import", file).status == 0
    database = load_settings(fr.settings, {}).database_url
    with serving(nl) as receiver, serving(fr) as sender:
        wait_for(receiver, "serve.start")
        wait_for(sender, "deliver.receipt")
        item = sql(database, "SELECT id FROM items WHERE state = 'sent'")
        # While it runs, as an operator would.
        assert hotline("--settings", fr.settings, "prove", item).status == 0
        shown = hotline("--settings", fr.settings, "status").out
    assert "sent" in shown
    assert "nl.hotline.example" in shown
    status = json.loads(hotline("--settings", fr.settings, "status", "--json").out)
    assert status["warnings"] == []
    assert (status["directory"]["version"], status["directory"]["nodes"]) == (1, 2)
    stream = next(row for row in status["streams_out"] if row["peer"] == nl.id)
    assert (stream["written"], stream["receipted"]) == (1, 1)
    assert [peer["peer"] for peer in status["peers"]] == [nl.id]
    check_proof(hotline, tmp_path, str(item), fr.data / "directory", pin)
    again = hotline("--settings", fr.settings, "prove", item)
    assert again.status == 2
    assert "exists already" in again.err
    kept = sql(database, "SELECT id FROM items WHERE state = 'kept'")
    said = hotline("--settings", fr.settings, "prove", kept)
    assert said.err == f"hotline: Nothing can be proven of item {kept}: no record of this item was sent or received.\n"


def check_proof(hotline: Hotline, folder: Path, item: str, directory: Path, pin: str) -> None:
    proof = folder / f"{item}.tlog-proof"
    assert proof.stat().st_mode & 0o077 == 0
    words = ("--directory", directory, "--root-fingerprint", pin)
    said = hotline("verify", proof, *words)
    assert (said.status, said.err) == (0, "")
    assert "from fr.hotline.example to nl.hotline.example." in said.out
    assert "nl.hotline.example signed (ed25519 and ml-dsa-44), at 20" in said.out
    assert "hosting country NL" in said.out
    assert "secret" not in said.out

    whole = parse_tlog_proof(proof.read_bytes())
    assert whole.extra is not None
    spoiled = {
        1: replace(whole, extra=None),
        2: replace(whole, extra=whole.extra.replace(b'"iat":"', b'"iat":"x')),
        4: replace(whole, extra=whole.extra.replace(b'"iss":"fr.', b'"iss":"be.')),
        5: replace(whole, extra=whole.extra.replace(b'"NL"', b'"DE"')),
        6: with_altered_signature(whole, 2),
        7: with_altered_signature(whole, 0),
    }
    tampered = folder / "tampered"
    for step, altered in spoiled.items():
        tampered.write_bytes(altered.to_bytes())
        said = hotline("verify", tampered, *words)
        assert (said.status, said.err) == (1, "")
        assert said.out.startswith(f"The file proves nothing. It fails at step {step}: ")
        assert "secret" not in said.out
    assert "cannot be read" in hotline("verify", folder / "absent", *words).err
    said = hotline("verify", proof, "--directory", directory, "--root-fingerprint", "0" * 64)
    assert (said.status, "holds no root of the pinned fingerprint" in said.err) == (2, True)


def with_altered_signature(proof: TlogProof, number: int) -> TlogProof:
    lines = list(proof.note.signatures)
    line = lines[number]
    lines[number] = replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
    return replace(proof, note=replace(proof.note, signatures=tuple(lines)))


def test_what_a_suspended_hotline_has_is_shown_and_goes_to_another(
    hotline: Hotline, new_home: NewHome, signers: Signers, tmp_path: Path
) -> None:
    fr, nl, de = new_home("FR"), new_home("NL"), new_home("DE")
    pin = signers.begin(*(home.data / "descriptor.json" for home in (fr, nl, de)), mandated=de.id)
    for home in (fr, nl, de):
        assert hotline("--settings", home.settings, "join", signers.repository, "--root-fingerprint", pin).status == 0
    file = tmp_path / "reports.csv"
    file.write_text("url,classification\nhttps://198.51.100.1/secret,national")

    def says(*words: object) -> str:
        said = hotline("--settings", fr.settings, *words)
        assert (said.status, said.err) == (0, ""), said
        return said.out

    says("import", file, "--no-progress")
    database = load_settings(fr.settings, {}).database_url
    with serving(nl) as receiver, serving(fr) as sender:
        wait_for(receiver, "serve.start")
        wait_for(sender, "deliver.receipt")
    item = sql(database, "SELECT id FROM items WHERE state = 'sent'")
    signers.change("--state", f"{nl.id}=suspended")
    with serving(fr) as sender, serving(de) as receiver:
        wait_for(sender, "serve.start")
        wait_for(receiver, "serve.start")
        status = json.loads(says("status", "--json"))
        assert status["out_of_reach"] == [{"node": nl.id, "code": "suspended", "items": 1}]
        warning = f"1 items of ours are with {nl.id}, which is suspended, and nobody acts on them"
        assert status["warnings"] == [warning]
        shown = says("status")
        assert "Items with hotlines that are gone" in shown
        assert f"WARNING: {warning}." in shown
        for node, why in ((nl.id, "is suspended and may come back"), (de.id, "is a member that takes part")):
            refused = hotline("--settings", fr.settings, "reclaim", node)
            assert (refused.status, refused.out, why in refused.err) == (2, "", True)
        (line, said) = says("reclaim", nl.id, "--suspended").splitlines()
        assert line.startswith(f"{item} is ")
        assert said == f"1 items were taken back from {nl.id}."
        wait_for(sender, "deliver.receipt")
        again = hotline("--settings", fr.settings, "reclaim", nl.id, "--suspended", "--item", item)
        assert (again.status, again.err) == (1, "")
        assert again.out.endswith(f"Item {item} is none of ours that it has.\n")
        assert json.loads(says("status", "--json"))["out_of_reach"] == []
    states = sql(database, "SELECT string_agg(state || ' ' || assigned_node, ', ' ORDER BY id) FROM items")
    assert states == f"withdrawn {nl.id}, sent {de.id}"
