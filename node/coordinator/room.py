"""How much room a directory has left, for no key and no node ever leaves it. Reads and writes nothing."""

from collections.abc import Iterator
from typing import Final

from node.errors import OperatorError
from protocol.directory import DIRECTORY_BYTES_MAX, KEYS_MAX, NODES_MAX, Directory

#: From here on it is said: more room comes with a version of the program that every node has to run first.
WARNING_PERCENT: Final = 50


def check_room(document: bytes) -> None:
    """Refuse, with OperatorError, a directory that no node would take for its size."""
    if len(document) > DIRECTORY_BYTES_MAX:
        raise OperatorError(
            f"The directory would have {len(document)} bytes, and no node takes more than {DIRECTORY_BYTES_MAX}: "
            "keys that served once stay in it, so leave out what is not urgent."
        )


def room_warnings(document: bytes, directory: Directory) -> list[str]:
    """Say which of its limits a directory has filled by half or more."""
    return list(_warnings(document, directory))


def _warnings(document: bytes, directory: Directory) -> Iterator[str]:
    if _is_much(len(document), DIRECTORY_BYTES_MAX):
        yield f"the directory has {len(document)} of at most {DIRECTORY_BYTES_MAX} bytes, and no key ever leaves it"
    if _is_much(len(directory.nodes), NODES_MAX):
        yield f"the directory has {len(directory.nodes)} of at most {NODES_MAX} nodes, and none ever leaves it"
    desk = () if directory.desk is None else (directory.desk,)
    for entry in (*directory.nodes.values(), *desk):
        if _is_much(len(entry.keys), KEYS_MAX):
            yield f"{entry.id} has {len(entry.keys)} of at most {KEYS_MAX} keys, and none ever leaves the directory"


def _is_much(used: int, most: int) -> bool:
    return 100 * used >= WARNING_PERCENT * most
