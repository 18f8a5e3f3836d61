"""A proposal on its way from signer to signer: a folder that holds what is to be signed, and what it follows.

Reads and writes that folder alone. Who may sign what is TUF's rule: the root before and the new one both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from node.errors import OperatorError
from node.platform.cli.files import read_bounded, write_whole
from node.platform.repository import ROOT, TARGETS, opened, public_of, sign, tuf_key
from node.platform.trust import ROOT_BYTES_MAX, TARGET, TARGETS_BYTES_MAX
from protocol.directory import DIRECTORY_BYTES_MAX, Directory, DirectoryInvalid, parse_directory
from protocol.keys import PublicKey, SigningKey

_ROOT_FILE: Final = "root.json"
_TARGETS_FILE: Final = "targets.json"
_BEFORE: Final = "before"


@dataclass(frozen=True, slots=True)
class Base:
    """What is published: the newest root, and the directory with its targets once there is one."""

    root: bytes
    targets: bytes | None = None
    document: bytes | None = None

    def directory(self) -> Directory | None:
        """Return the directory that is published."""
        return None if self.document is None else parse_directory(self.document)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new root, a new directory with its targets, or both."""

    base: Base | None = None
    root: bytes | None = None
    targets: bytes | None = None
    document: bytes | None = None

    @classmethod
    def read(cls, folder: Path) -> "Proposal":
        """Return the proposal in a folder; OperatorError when it is none."""
        before = folder / _BEFORE
        base = None
        if before.is_dir():
            root = _read(before / _ROOT_FILE, ROOT_BYTES_MAX)
            if root is None:
                raise OperatorError(f"The folder {before} holds no root.")
            base = Base(
                root, _read(before / _TARGETS_FILE, TARGETS_BYTES_MAX), _read(before / TARGET, DIRECTORY_BYTES_MAX)
            )
        made = cls(
            base,
            _read(folder / _ROOT_FILE, ROOT_BYTES_MAX),
            _read(folder / _TARGETS_FILE, TARGETS_BYTES_MAX),
            _read(folder / TARGET, DIRECTORY_BYTES_MAX),
        )
        made.check_form()
        return made

    def write(self, folder: Path) -> None:
        """Write it into a folder. Raises OperatorError."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.base is not None:
                (folder / _BEFORE).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise OperatorError(f"The folder {folder} cannot be made ({error.strerror}).") from None
        if self.base is not None:
            _write(folder / _BEFORE, self.base.root, self.base.targets, self.base.document)
        _write(folder, self.root, self.targets, self.document)

    def check_form(self) -> None:
        """Refuse, with OperatorError, what is no proposal at all."""
        if self.root is None and (self.base is None or self.targets is None):
            raise OperatorError("The folder holds no proposal; `hotline directory init` or `propose` makes one.")
        if (self.targets is None) is not (self.document is None):
            raise OperatorError("The proposal holds a directory without targets, or targets without a directory.")
        if self.document is not None and self.targets is not None:
            self.directory()
            signed = opened(self.targets, Targets).signed
            try:
                signed.targets[TARGET].verify_length_and_hashes(self.document)
            except (KeyError, RepositoryError):
                raise OperatorError("The directory of the proposal is not the one that its targets describe.") from None

    def directory(self) -> Directory | None:
        """Return the proposed directory; OperatorError for one that breaks a rule."""
        if self.document is None:
            return None
        try:
            return parse_directory(self.document)
        except DirectoryInvalid as error:
            raise OperatorError(f"The proposed directory is not valid: {error}.") from None

    def new_root(self) -> Root:
        """Return the root that counts once this is published."""
        raw = self.root if self.root is not None else None if self.base is None else self.base.root
        if raw is None:
            raise OperatorError("The proposal has no root.")
        root: Root = opened(raw, Root).signed
        return root

    def signed_by(self, key: SigningKey) -> tuple["Proposal", list[str]]:
        """Return it with the signatures that this key may give, and the names of what it signed; maybe none."""
        public = key.public()
        done: list[str] = []
        made = self
        if made.root is not None and any(_lists(root, ROOT, public) for root in self._root_signers()):
            made, done = replace(made, root=sign(made.root, key)), [*done, "root"]
        if made.targets is not None and _lists(self.new_root(), TARGETS, public):
            made, done = replace(made, targets=sign(made.targets, key)), [*done, "directory"]
        return made, done

    def joined(self, other: "Proposal") -> "Proposal":
        """Return it with the signatures of a copy that somebody else signed; OperatorError when it is no copy."""
        return replace(self, root=_joined(self.root, other.root), targets=_joined(self.targets, other.targets))

    def missing(self) -> list[str]:
        """Return what is not signed enough yet, a sentence each."""
        said = []
        if self.root is not None:
            metadata = opened(self.root, Root)
            for root in self._root_signers():
                said += _missing(root, ROOT, metadata, f"the keys of root {root.version}")
        targets = self.targets if self.targets is not None else None if self.base is None else self.base.targets
        if targets is not None:
            said += _missing(self.new_root(), TARGETS, opened(targets, Targets), "the keys of the directory")
        return said

    def check(self, base: Base | None, now: datetime) -> None:
        """Refuse, with OperatorError, what may not follow `base`, which is published now."""
        missing = self.missing()
        if missing:
            raise OperatorError(f"The proposal is not signed enough: {missing[0]}.")
        if (base is None) is not (self.base is None) or (base and self.base and base.root != self.base.root):
            raise OperatorError("The proposal was made for another root than the one that is published.")
        root = self.new_root()
        if self.root is not None and root.version != (
            1 if base is None else opened(base.root, Root).signed.version + 1
        ):
            raise OperatorError(f"The proposed root has version {root.version}, which is not the next.")
        directory, known = self.directory(), None if base is None else base.directory()
        if directory is None and known is None:
            raise OperatorError("The proposal holds no directory, and none is published yet.")
        if directory is not None and known is not None and directory.version != known.version + 1:
            raise OperatorError(
                f"The proposal is for version {directory.version}, but version {known.version} is published: "
                "propose again on what is published."
            )
        targets = self.targets if self.targets is not None else None if base is None else base.targets
        for name, expires in (
            ("root", root.expires),
            ("directory", now if targets is None else opened(targets, Targets).signed.expires),
        ):
            if expires <= now:
                raise OperatorError(f"The {name} has expired; propose a new one.")

    def _root_signers(self) -> list[Root]:
        """Return the roots whose keys have to sign the proposed one: the one before, and itself (TUF 5.3.4)."""
        if self.root is None:
            return []
        roots = [] if self.base is None else [opened(self.base.root, Root).signed]
        return [*roots, opened(self.root, Root).signed]


def changed_keys(before: Sequence[PublicKey], add: Iterable[PublicKey], remove: Iterable[PublicKey]) -> list[PublicKey]:
    """Return the keys of a role after a change; OperatorError for a key that is there already or is not."""
    keys = list(before)
    for key in remove:
        if key not in keys:
            raise OperatorError(f"The key {tuf_key(key).keyid[:16]} is not one of the role's.")
        keys.remove(key)
    for key in add:
        if key in keys:
            raise OperatorError(f"The key {tuf_key(key).keyid[:16]} is one of the role's already.")
        keys.append(key)
    return keys


def _lists(root: Root, role: str, key: PublicKey) -> bool:
    return any(public_of(root.keys[keyid]) == key for keyid in root.roles[role].keyids)


def _missing(root: Root, role: str, metadata: Metadata[Any], whose: str) -> list[str]:
    result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if result.verified:
        return []
    return [f"{role} has {len(result.signed)} of {result.threshold} signatures by {whose}"]


def _joined(ours: bytes | None, theirs: bytes | None) -> bytes | None:
    if ours is None or theirs is None:
        if ours is not theirs:
            raise OperatorError("The folders are not copies of one proposal.")
        return None
    one: Metadata[Any] = Metadata.from_bytes(ours)
    other = opened(theirs, type(one.signed))
    if one.signed_bytes != other.signed_bytes:
        raise OperatorError("The folders are not copies of one proposal.")
    one.signatures.update(
        {
            keyid: signature
            for keyid, signature in other.signatures.items()
            if keyid not in one.signatures or not one.signatures[keyid].signature
        }
    )
    return one.to_bytes()


def _read(path: Path, bytes_max: int) -> bytes | None:
    return read_bounded(path, bytes_max, str(path)) if path.exists() else None


def _write(folder: Path, root: bytes | None, targets: bytes | None, document: bytes | None) -> None:
    for name, content in ((TARGET, document), (_TARGETS_FILE, targets), (_ROOT_FILE, root)):
        if content is not None:
            write_whole(folder / name, content)
