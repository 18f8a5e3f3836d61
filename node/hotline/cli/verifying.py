"""`hotline verify`: says in words what a proof file proves, offline. Needs no settings, no database and no network."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from node.platform.cli.command import Context
from node.platform.cli.files import read_bounded
from node.platform.membership import read_directory
from protocol.evidence import EvidenceInvalid, verify_evidence
from protocol.tlogproof import TLOG_PROOF_BYTES_MAX

EXIT_INVALID: Final = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check the proof of a record and say in words what it proves: who signed it, who stored it and when. It "
        "needs the file, the metadata of the membership directory and the fingerprint of its root, and nothing else: "
        "no settings, no database, no network. Exit status 0 when it proves that, 1 when it does not."
    )
    parser.add_argument("file", metavar="FILE", help="the proof, as `hotline prove` wrote it")
    parser.add_argument(
        "--directory",
        metavar="FOLDER",
        required=True,
        help="the directory's metadata, as a node keeps it in directory_dir",
    )
    parser.add_argument(
        "--root-fingerprint", metavar="HEX", required=True, help="fingerprint of the directory's root, which nodes pin"
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace, _context: Context) -> int:
    """Verify; raises OperatorError when the file or the directory cannot be read at all."""
    directory = read_directory(Path(arguments.directory), arguments.root_fingerprint).directory
    proof = read_bounded(Path(arguments.file), TLOG_PROOF_BYTES_MAX, "The proof file")
    try:
        finding = verify_evidence(proof, directory)
    except EvidenceInvalid as invalid:
        print(f"The file proves nothing. It fails at {invalid}.")
        return EXIT_INVALID
    print("\n".join(finding.words()))
    return 0
