"""What one setting's value must be, rule by rule; reads no file and no environment."""

import base64
import binascii
import re
import stat
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from node.errors import SettingError
from protocol.checkpoint import NODE_ID_BYTES_MAX, check_node_id
from protocol.codes import COUNTRIES
from protocol.errors import ProtocolError

MASTER_KEY_BYTES = 32
_PORT_MAX = 65_535
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
#: What neither a host nor a port has: user information, spaces, capitals, anything that is not ASCII.
_HOST = re.compile(r"[^a-z0-9.:/\[\]-]")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def split_address(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Return host and port of `host:port` or `[ipv6]:port`; ValueError when it is neither."""
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        host, port = text, "" if default_port is None else str(default_port)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or bracketed != (":" in host) or not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        raise ValueError("not host:port")
    return host, int(port)


def exposure(mode: int) -> str | None:
    """Tell why a file of this `st_mode` may not hold a secret, or None when it may."""
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if not stat.S_ISREG(mode):
        return "is not an ordinary file"
    if mode & _OTHERS:
        return "may be read or written by others; chmod 600 it"
    return None


def _node_id(name: str, value: str) -> str:
    try:
        check_node_id(value, field=name)
    except ProtocolError:
        limit = f"must be 1 to {NODE_ID_BYTES_MAX} lower-case letters, digits, dots and hyphens"
        raise SettingError(name, limit) from None
    return value


def _countries(name: str, value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise SettingError(name, "must name at least one country")
    for code in value:
        if code not in COUNTRIES:
            raise SettingError(name, f"{code!r} is not an ISO 3166-1 alpha-2 country code in capitals")
    if len(set(value)) != len(value):
        raise SettingError(name, "names a country twice")
    return value


def _base_url(name: str, value: str) -> str:
    """Return the address as the directory lists it: scheme, host and perhaps a port, without a slash at the end."""
    value = value.removesuffix("/")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise SettingError(name, "is not an address") from None
    if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != value or _HOST.search(value):
        raise SettingError(name, "must be https://host[:port], the host in lower case, and nothing behind it")
    if not host:
        raise SettingError(name, "names no host")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingError(name, "must be https, since its host is no loopback address")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database_url(name: str, value: str) -> str:
    try:
        scheme = urlsplit(value).scheme
    except ValueError:
        raise SettingError(name, "is not an address") from None
    if value and scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise SettingError(name, "must begin with postgresql://")
    return value


def _listen(name: str, value: str) -> str:
    try:
        split_address(value)
    except ValueError:
        raise SettingError(name, "must be address:port, with an IPv6 address in brackets") from None
    return value


def _dns_servers(name: str, value: tuple[str, ...]) -> tuple[str, ...]:
    for server in value:
        try:
            ip_address(split_address(server, default_port=53)[0])
        except ValueError:
            raise SettingError(name, "each must be ip:port, with an IPv6 address in brackets") from None
    return value


def check_fingerprint(name: str, value: str) -> str:
    """Return the fingerprint of a root as it is pinned; SettingError when it is none."""
    if value and _FINGERPRINT.fullmatch(value) is None:
        raise SettingError(name, "must be a fingerprint, 64 hexadecimal digits in lower case")
    return value


def check_sources(name: str, value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sources, addresses as `base_url` has them; SettingError for what is neither address nor path."""
    checked = []
    for source in value:
        if "://" in source:
            checked.append(_base_url(name, source))
        elif source.startswith("/"):
            checked.append(source)
        else:
            raise SettingError(name, "each must be https://host[:port] or the whole path of a folder")
    return tuple(checked)


def _master_key(name: str, value: str) -> str:
    try:
        size = len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        size = -1
    if value and size != MASTER_KEY_BYTES:
        raise SettingError(name, f"must be {MASTER_KEY_BYTES} bytes in base64")
    return value


RULES: Mapping[str, Callable[[str, Any], object]] = {
    "node_id": _node_id,
    "countries": _countries,
    "base_url": _base_url,
    "database_url": _database_url,
    "listen_peer": _listen,
    "listen_api": _listen,
    "dns_servers": _dns_servers,
    "directory_root": check_fingerprint,
    "directory_sources": check_sources,
    "master_key": _master_key,
}
