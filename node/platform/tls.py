"""TLS of the peer door and of calls to peers; never says who a peer is: that is said by signatures alone.

Certificates, keys and files of authorities that are replaced on disk are taken up while the process runs.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from node.errors import SettingError
from node.platform.telemetry import Logger
from node.setting_rules import exposure
from node.settings import Settings

#: HX/1 is HTTP/1.1; a caller that wants something else is told so in the handshake.
_ALPN: Final = ("http/1.1",)
_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate chain with its key, as two settings name them."""

    name: str
    certificate: Path
    key: Path

    def show(self, context: ssl.SSLContext) -> None:
        """Read both files into a context; raises SettingError."""
        try:
            self.certificate.stat()
            fault = exposure(self.key.stat().st_mode)
        except OSError as error:
            raise SettingError(self.name, f"{error.filename} cannot be read ({error.strerror})") from None
        if fault is not None:
            raise SettingError(self.name.replace("certificate", "key"), f"{self.key} {fault}")
        try:
            context.load_cert_chain(self.certificate, self.key, password=self._refuse_password)
        except (ssl.SSLError, OSError):
            reason = f"{self.certificate} and {self.key} are not a certificate (PEM) and the key that belongs to it"
            raise SettingError(self.name, reason) from None

    def _refuse_password(self) -> NoReturn:
        raise SettingError(self.name.replace("certificate", "key"), f"{self.key} is encrypted; nobody can be asked")


class RenewedContext(ssl.SSLContext):
    """Stands for the newest context that its files made: each new connection begins with that one.

    A context cannot forget an authority, so one is made anew from all of its files when one of them changes. Itself
    it shows nothing and believes nobody: what asks it for other than a connection of the event loop fails.
    """

    _make: Callable[[], ssl.SSLContext]
    _files: tuple[Path, ...]
    _newest: ssl.SSLContext
    _stamp: _Stamp | None

    @classmethod
    def of(cls, make: Callable[[], ssl.SSLContext], *files: Path | None) -> "RenewedContext":
        """Return one for what `make` reads from `files`; raises SettingError as `make` does."""
        named = tuple(file for file in files if file is not None)
        # Before they are read: what is replaced meanwhile is read again.
        stamp = _stamp(named)
        newest = make()
        self = cls(newest.protocol)
        _restrict(self)
        self._make, self._newest, self._files, self._stamp = make, newest, named, stamp
        return self

    def wrap_bio(self, *args: Any, **more: Any) -> ssl.SSLObject:
        """Begin a connection of an event loop."""
        return self._newest.wrap_bio(*args, **more)

    def refresh(self) -> bool:
        """Make a new context if the files changed since; tells whether they did.

        SettingError, once for each change, when the files are no good: then the context in use stays.
        """
        stamp = _stamp(self._files)
        # One that is being replaced just now, or gone: what was read stays in use, and the next round looks again.
        if stamp is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        self._newest = self._make()
        return True


@dataclass(frozen=True, slots=True)
class PeerTls:
    """What the peer door is opened with and what peers are called with; None leaves each as it is without settings."""

    door: RenewedContext | None
    calls: RenewedContext | None

    def refresh(self) -> bool:
        """Take up files that were replaced; tells whether there were any. SettingError when one is no good.

        What is wrong on one side does not keep the other from its new files; of two faults the first is told.
        """
        changed, faults = False, []
        for context in (self.door, self.calls):
            try:
                changed |= context is not None and context.refresh()
            except SettingError as error:
                faults.append(error)
        if faults:
            raise faults[0]
        return changed

    def look(self, log: Logger) -> None:
        """Take up files that were replaced, and say so; the ones in use stay until the new ones are good."""
        try:
            if self.refresh():
                log.info("new certificates are in use", action="tls.changed")
        except SettingError as error:
            log.error("new certificates cannot be used", action="tls.failed", reason=error.sentence)  # noqa: TRY400 - its sentence says it all


def open_peer_tls(settings: Settings) -> PeerTls:
    """Return the contexts that `settings` ask for; raises SettingError for a file that is missing, exposed or no good.

    Without a certificate for calls the door's is shown to a peer that asks for one.
    """
    own = _identity("peer_tls_certificate_file", settings.peer_tls_certificate_file, settings.peer_tls_key_file)
    shown = (
        _identity(
            "peer_tls_client_certificate_file",
            settings.peer_tls_client_certificate_file,
            settings.peer_tls_client_key_file,
        )
        or own
    )
    callers, peers = settings.peer_tls_client_ca_file, settings.peer_tls_ca_file
    door = calls = None
    if own is not None:
        door = RenewedContext.of(partial(_door, own, callers), own.certificate, own.key, callers)
    if shown is not None:
        calls = RenewedContext.of(partial(_calls, shown, peers), shown.certificate, shown.key, peers)
    elif peers is not None:
        calls = RenewedContext.of(partial(_calls, None, peers), peers)
    return PeerTls(door, calls)


def _identity(name: str, certificate: Path | None, key: Path | None) -> Identity | None:
    return None if certificate is None or key is None else Identity(name, certificate, key)


def _door(identity: Identity, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, "peer_tls_client_ca_file", client_ca)
    identity.show(context)
    return context


def _calls(identity: Identity | None, ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    _restrict(context)
    if ca is not None:
        _trust(context, "peer_tls_ca_file", ca)
    if identity is not None:
        identity.show(context)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(_ALPN)


def _trust(context: ssl.SSLContext, name: str, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise SettingError(name, f"{ca} holds no certificates (PEM)") from None
    except OSError as error:
        raise SettingError(name, f"{ca} cannot be read ({error.strerror})") from None


def _stamp(files: Sequence[Path]) -> _Stamp | None:
    """Return what changes when one of the files is replaced, written or given other permissions; None without one."""
    try:
        found = [file.stat() for file in files]
    except OSError:
        return None
    return tuple((one.st_ino, one.st_ctime_ns, one.st_size) for one in found)
