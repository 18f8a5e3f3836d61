"""`hotline verify`: says in words what a proof file proves, offline. Needs no settings, no database and no network."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from node.hotline.cli.command import Context, check_authority
from node.hotline.cli.files import read_bounded
from node.platform.membership import read_directory
from protocol.evidence import EvidenceInvalid, verify_evidence
from protocol.tlogproof import TLOG_PROOF_BYTES_MAX

EXIT_INVALID: Final = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check the proof of a record and say in words what it proves: who signed it, who stored it and when. It "
        "needs the file, the membership directory and the verifier key of the directory's authority, and nothing else: "
        "no settings, no database, no network. Exit status 0 when it proves that, 1 when it does not."
    )
    parser.add_argument("file", metavar="FILE", help="the proof, as `hotline prove` wrote it")
    parser.add_argument("--directory", metavar="FILE", required=True, help="the signed membership directory")
    parser.add_argument("--authority", metavar="VKEY", required=True, help="verifier key of the directory's authority")
    parser.set_defaults(run=run)


def run(arguments: Namespace, _context: Context) -> int:
    """Verify; raises OperatorError when the file or the directory cannot be read at all."""
    check_authority(arguments.authority)
    directory, _ = read_directory(Path(arguments.directory), arguments.authority)
    proof = read_bounded(Path(arguments.file), TLOG_PROOF_BYTES_MAX, "The proof file")
    try:
        finding = verify_evidence(proof, directory)
    except EvidenceInvalid as invalid:
        print(f"The file proves nothing. It fails at {invalid}.")
        return EXIT_INVALID
    print("\n".join(finding.words()))
    return 0
