"""The node's settings: one frozen object, read and checked once. The only reader of the environment; never guesses."""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints
from urllib.parse import urlsplit

from node.errors import OperatorError, SettingError
from node.setting_rules import RULES, split_address

DEFAULT_FILE = "hotline.toml"
FILE_VARIABLE = "HOTLINE_SETTINGS"
_PREFIX = "HOTLINE_"
_FILE_BYTES_MAX = 262_144
#: A signed checkpoint with its signature lines and the batch's framing stay below this.
_BATCH_OVERHEAD_BYTES = 65_536
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Option:
    """What a setting promises: its sentence for docs/operations.md and the limits it is held to."""

    doc: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    under_data_dir: bool = False
    environment_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one node process runs by; made by `load_settings` or `settings_from`, which check every value."""

    node_id: Annotated[
        str, Option("Name of this node in the directory, of lower-case letters, digits, dots and hyphens.")
    ]
    countries: Annotated[
        tuple[str, ...], Option("ISO 3166-1 alpha-2 codes of the countries this hotline is competent for.")
    ]
    base_url: Annotated[
        str, Option("Public address of this node's peer protocol, https unless its host is a loopback address.")
    ]
    role: Annotated[str, Option("What this process is in the network.", choices=("hotline", "coordinator"))] = "hotline"
    data_dir: Annotated[Path, Option("Folder of everything the node keeps in files.")] = Path("data")
    listen_peer: Annotated[str, Option("Address and port that serve the peer protocol.")] = "127.0.0.1:8701"
    listen_api: Annotated[str, Option("Address and port that serve the API, health, metrics and documentation.")] = (
        "127.0.0.1:8702"
    )
    log_level: Annotated[
        str, Option("Least severe log line written.", choices=("debug", "info", "warning", "error"))
    ] = "info"
    log_format: Annotated[str, Option("Form of a log line.", choices=("json", "text"))] = "json"

    database_url: Annotated[
        str, Option("Address of the PostgreSQL database, postgresql://…; empty with embedded_database.")
    ] = field(default="", repr=False)
    embedded_database: Annotated[
        bool, Option("Run a private PostgreSQL under data_dir/db instead of using database_url.")
    ] = False
    database_pool_size: Annotated[int, Option("Database connections this process keeps open.", low=2, high=200)] = 10

    keys_dir: Annotated[Path, Option("Folder of the signing keys, one file a key.", under_data_dir=True)] = Path("keys")
    master_key_file: Annotated[
        Path,
        Option(
            "File of the key that wraps the field keys; not read when HOTLINE_MASTER_KEY holds the key.",
            under_data_dir=True,
        ),
    ] = Path("master.key")
    master_key: Annotated[
        str,
        Option("The master key itself, base64 of 32 bytes; taken from the environment only.", environment_only=True),
    ] = field(default="", repr=False)
    directory_root: Annotated[
        str, Option("Fingerprint of the root that the membership directory is pinned by; `hotline join` writes it.")
    ] = ""
    directory_sources: Annotated[
        tuple[str, ...],
        Option("Where the membership directory comes from: addresses of the coordinator or of nodes, or folders."),
    ] = ()
    directory_dir: Annotated[
        Path, Option("Folder of the membership directory as it is trusted.", under_data_dir=True)
    ] = Path("directory")
    directory_refresh_s: Annotated[
        float, Option("Seconds after which the membership directory is asked for again.", low=1, high=86_400)
    ] = 600.0

    directory_keys_dir: Annotated[
        Path,
        Option("Coordinator: folder of `snapshot.key` and `timestamp.key`, which sign online.", under_data_dir=True),
    ] = Path("directory-keys")
    timestamp_every_s: Annotated[
        float, Option("Coordinator: seconds after which the timestamp is signed anew.", low=1, high=86_400)
    ] = 900.0
    timestamp_hours: Annotated[int, Option("Coordinator: hours for which a timestamp counts.", low=1, high=336)] = 72

    geo_country_databases: Annotated[
        tuple[Path, ...], Option("MMDB country files, all asked; empty uses the built-in one.")
    ] = ()
    geo_asn_databases: Annotated[tuple[Path, ...], Option("MMDB files of autonomous systems, all asked.")] = ()
    geo_allow_reserved: Annotated[
        bool, Option("Treat private and documentation addresses as hosted somewhere, for demo and tests.")
    ] = False
    dns_servers: Annotated[tuple[str, ...], Option("Resolvers to ask, each ip:port; empty uses /etc/resolv.conf.")] = ()
    dns_timeout_ms: Annotated[int, Option("Milliseconds one DNS query may take.", low=50, high=60_000)] = 2000
    dns_tries_max: Annotated[
        int, Option("Rounds through all resolvers before a name counts as unanswered.", low=1, high=10)
    ] = 3
    dns_concurrency_max: Annotated[int, Option("Names located at once.", low=1, high=10_000)] = 256
    locate_attempts_max: Annotated[
        int, Option("Attempts to locate an item before it is left to a person.", low=1, high=100)
    ] = 12
    locate_retry_base_s: Annotated[
        float, Option("Seconds before the second attempt to locate, doubled each time.", low=0, high=86_400)
    ] = 30.0
    locate_batch_items_max: Annotated[int, Option("Items one worker locates at a time.", low=1, high=10_000)] = 500

    forward_unqualified: Annotated[
        bool, Option("Forward items hosted abroad without a qualification under national law.")
    ] = False
    batch_records_max: Annotated[int, Option("Records in one batch to a peer.", low=1, high=1000)] = 1000
    batch_bytes_max: Annotated[int, Option("Bytes of records in one batch to a peer.", low=131_072, high=1_048_576)] = (
        1_048_576
    )
    unapplied_records_max: Annotated[
        int,
        Option("Records of one peer that may wait to be applied before more are refused.", low=1, high=100_000_000),
    ] = 1_000_000
    batches_in_flight_max: Annotated[int, Option("Batches under way to one peer at once.", low=1, high=16)] = 3
    deliveries_max: Annotated[
        int,
        Option(
            "Peers delivered to at once, each with up to batches_in_flight_max batches in memory.", low=1, high=10_000
        ),
    ] = 64
    backoff_base_s: Annotated[
        float, Option("Upper end, in seconds, of the first random wait after a failure to deliver.", low=0.01, high=900)
    ] = 2.0
    backoff_cap_s: Annotated[
        float, Option("Longest wait between attempts to deliver, in seconds.", low=0.01, high=900)
    ] = 900.0
    peer_timeout_s: Annotated[float, Option("Seconds one call to a peer may take.", low=0.1, high=600)] = 30.0
    body_bytes_max: Annotated[
        int, Option("Bytes of one request to the peer protocol.", low=131_072, high=67_108_864)
    ] = 4_194_304
    bodies_bytes_max: Annotated[
        int, Option("Bytes of request bodies in memory at once at each door.", low=1_048_576, high=17_179_869_184)
    ] = 134_217_728
    batches_at_once_max: Annotated[
        int, Option("Batches and questions of peers worked on at once; others wait for their turn.", low=1, high=1000)
    ] = 8
    peer_requests_per_s: Annotated[
        float, Option("Requests a second that one peer may make, over ten seconds.", low=0.1, high=100_000)
    ] = 200.0
    peer_records_per_s: Annotated[
        float, Option("New records a second that one peer may send over a long time.", low=0.01, high=1_000_000)
    ] = 2000.0
    peer_records_burst: Annotated[
        int, Option("New records that one peer may send at once, after a pause.", low=1, high=100_000_000)
    ] = 2_000_000
    peer_bytes_per_s: Annotated[
        float, Option("Bytes of new records a second that one peer may send over a long time.", low=1, high=1e9)
    ] = 4_194_304.0
    peer_bytes_burst: Annotated[
        int, Option("Bytes of new records that one peer may send at once, after a pause.", low=61_440, high=10**12)
    ] = 8_589_934_592
    peer_answers_bytes_per_s: Annotated[
        float,
        Option("Bytes a second that one peer is given again over a long time, 64 KiB a question.", low=1, high=1e9),
    ] = 1_048_576.0
    peer_answers_bytes_burst: Annotated[
        int, Option("Bytes that one peer is given again at once, after a pause.", low=1_048_576, high=10**12)
    ] = 16_777_216
    connections_max: Annotated[int, Option("Connections open at once at each door.", low=1, high=65_536)] = 1024
    connections_per_address_max: Annotated[
        int, Option("Of these from one address; a reverse proxy is one address.", low=1, high=65_536)
    ] = 256
    head_timeout_s: Annotated[
        float, Option("Seconds in which the head of a request has to arrive.", low=0.1, high=600)
    ] = 10.0
    body_timeout_s: Annotated[
        float, Option("Seconds in which the body of a request has to arrive.", low=0.1, high=600)
    ] = 30.0
    write_timeout_s: Annotated[
        float, Option("Seconds in which a caller has to go on reading its answer.", low=0.1, high=600)
    ] = 30.0
    peer_tls_certificate_file: Annotated[
        Path | None, Option("PEM certificate chain of the peer door, which then speaks TLS itself.")
    ] = None
    peer_tls_key_file: Annotated[Path | None, Option("PEM key of that certificate, mode 0600.")] = None
    peer_tls_client_ca_file: Annotated[
        Path | None, Option("PEM authorities one of which must vouch for a caller's certificate at the peer door.")
    ] = None
    peer_tls_ca_file: Annotated[
        Path | None, Option("PEM authorities that vouch for peers, beside those of the system.")
    ] = None
    peer_tls_client_certificate_file: Annotated[
        Path | None, Option("PEM certificate chain shown to peers that ask for one; empty shows the peer door's.")
    ] = None
    peer_tls_client_key_file: Annotated[Path | None, Option("PEM key of that certificate, mode 0600.")] = None
    clock_window_s: Annotated[int, Option("Seconds a peer's clock may differ from ours.", low=1, high=3600)] = 300
    nonce_retention_s: Annotated[
        int, Option("Seconds a nonce of a peer's request is remembered.", low=2, high=86_400)
    ] = 900
    deliver_by_days: Annotated[int, Option("Days within which a record is to be delivered.", low=1, high=365)] = 30

    api_body_bytes_max: Annotated[int, Option("Bytes of one request to the API.", low=65_536, high=268_435_456)] = (
        8_388_608
    )
    api_reports_max: Annotated[int, Option("Reports in one request to the API.", low=1, high=10_000)] = 1000
    group_commit_reports_max: Annotated[
        int, Option("Reports of several requests that share one commit.", low=1, high=10_000)
    ] = 500
    import_rows_per_commit: Annotated[int, Option("Rows of an import in one commit.", low=1, high=100_000)] = 1000
    retain_days: Annotated[
        int, Option("Days for which a peer may keep a record of ours, said in the record.", low=1, high=36_500)
    ] = 365
    poll_s: Annotated[
        float, Option("Seconds after which an idle worker looks for work unasked.", low=0.01, high=60)
    ] = 1.0
    desk_poll_s: Annotated[
        float, Option("Seconds between questions to the network's desk about open disputes.", low=0.05, high=86_400)
    ] = 60.0
    shutdown_s: Annotated[float, Option("Seconds a clean shutdown may take.", low=0, high=600)] = 20.0

    @property
    def embedded_database_dir(self) -> Path:
        """Where the private PostgreSQL keeps its files."""
        return self.data_dir / "db"


class SettingRow(NamedTuple):
    """One row of the settings table in docs/operations.md."""

    name: str
    kind: str
    default: str
    doc: str


_ANNOTATIONS = get_type_hints(Settings, include_extras=True)
_HINTS: Mapping[str, Any] = {name: get_args(each)[0] for name, each in _ANNOTATIONS.items()}
#: Each setting with its sentence and its limits, in the order of `Settings`.
OPTIONS: Mapping[str, Option] = {name: get_args(each)[1] for name, each in _ANNOTATIONS.items()}
_DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Settings)}
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    Path: "path",
    Path | None: "path",
    tuple[str, ...]: "list of text",
    tuple[Path, ...]: "list of paths",
}


COORDINATOR = "coordinator"
ROLES = ("hotline", COORDINATOR)
#: What the coordinator reads beside its own settings; everything else is a hotline's.
_SHARED = frozenset(
    {
        "node_id",
        "base_url",
        "role",
        "data_dir",
        "listen_peer",
        "listen_api",
        "log_level",
        "log_format",
        "database_url",
        "embedded_database",
        "database_pool_size",
        "keys_dir",
        "peer_tls_certificate_file",
        "peer_tls_key_file",
        "peer_tls_client_ca_file",
        "peer_tls_ca_file",
        "peer_tls_client_certificate_file",
        "peer_tls_client_key_file",
        "peer_timeout_s",
        "clock_window_s",
        "nonce_retention_s",
        "peer_requests_per_s",
        "connections_max",
        "connections_per_address_max",
        "head_timeout_s",
        "body_timeout_s",
        "write_timeout_s",
        "shutdown_s",
    }
)
_COORDINATORS = frozenset({"directory_keys_dir", "timestamp_every_s", "timestamp_hours"})


def _check_role(values: Mapping[str, object]) -> object:
    """Return the role that the settings are for; SettingError for one that this role does not have."""
    role = values.get("role", "hotline")
    for name in sorted(set(values) & set(OPTIONS) - _SHARED):
        if (name in _COORDINATORS) is not (role == COORDINATOR):
            raise SettingError(name, f"is no setting of role {role}")
    return role


def documented() -> tuple[SettingRow, ...]:
    """Return the settings table, in the order of `Settings`; docs/operations.md is tested against it."""
    return tuple(
        SettingRow(name, _KINDS[_HINTS[name]], _default_text(name), each.doc) for name, each in OPTIONS.items()
    )


def _default_text(name: str) -> str:
    default = _DEFAULTS[name]
    if default is MISSING:
        return "required"
    if OPTIONS[name].under_data_dir:
        return f"data_dir/{default}"
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default not in ("", (), None) else "empty"


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the checked settings of `path`, overridden by `HOTLINE_<NAME>` variables of `environ`.

    `path` None means the file that HOTLINE_SETTINGS names, else `hotline.toml` in the current folder; that last one
    may be absent when the environment alone says everything. Relative paths count from the settings file's folder.
    Lists stand in the environment separated by commas. OperatorError, one sentence, for whatever is wrong.
    """
    chosen = path or Path(environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    named = path is not None or bool(environ.get(FILE_VARIABLE))
    values: dict[str, Any] = read_settings_file(chosen) if named or chosen.exists() else {}
    for name in values:
        if name not in OPTIONS:
            raise SettingError(name, f"there is no such setting (in {chosen})")
        if OPTIONS[name].environment_only:
            raise SettingError(name, f"does not stand in the settings file; set {_PREFIX}{name.upper()}")
    for variable, text in environ.items():
        if variable.startswith(_PREFIX) and variable != FILE_VARIABLE:
            name = variable.removeprefix(_PREFIX).lower()
            if name not in OPTIONS:
                raise SettingError(name, f"there is no such setting (environment variable {variable})")
            values[name] = _from_text(name, text)
    return settings_from(values, chosen.absolute().parent)


def settings_from(values: Mapping[str, object], folder: Path) -> Settings:
    """Return the checked settings of `values`; relative paths count from `folder`. SettingError for what is wrong."""
    checked: dict[str, Any] = {}
    if _check_role(values) == COORDINATOR:
        checked["countries"] = ()
    for name in OPTIONS:
        if name in values:
            checked[name] = _checked(name, values[name], folder)
        elif _DEFAULTS[name] is MISSING and name not in checked:
            raise SettingError(name, "is required and not set")
    if "data_dir" not in checked:
        checked["data_dir"] = folder / "data"
    for name, each in OPTIONS.items():
        if name not in checked and each.under_data_dir:
            checked[name] = checked["data_dir"] / _DEFAULTS[name]
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise SettingError(unknown[0], "there is no such setting")
    settings = Settings(**checked)
    _check_together(settings)
    return settings


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return what a settings file says, unchecked. OperatorError when it cannot be read or others may read a secret."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        raise OperatorError(f"There is no settings file {path}; `hotline init` writes one.") from None
    except OSError as error:
        raise OperatorError(f"The settings file {path} cannot be read ({error.strerror}).") from None
    if len(raw) > _FILE_BYTES_MAX:
        raise OperatorError(f"The settings file {path} is larger than {_FILE_BYTES_MAX} bytes.")
    try:
        values = tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise OperatorError(f"The settings file {path} is not UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"The settings file {path} is not TOML: {error}.") from None
    if mode & _OTHERS and _has_password(values.get("database_url")):
        raise OperatorError(f"The settings file {path} holds a database password and others may read it; chmod 600 it.")
    return values


def _has_password(url: object) -> bool:
    try:
        return isinstance(url, str) and urlsplit(url).password is not None
    except ValueError:
        return True


def _from_text(name: str, text: str) -> object:
    """Return the value an environment variable holds, in the type of its setting."""
    kind = _HINTS[name]
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise SettingError(name, "must be true or false")
        return words[text.lower()]
    if kind in {int, float}:
        try:
            return kind(text)
        except ValueError:
            raise SettingError(name, f"must be a {_KINDS[kind]}") from None
    if kind in {tuple[str, ...], tuple[Path, ...]}:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _checked(name: str, value: object, folder: Path) -> object:
    """Return `value` in the type of the setting, within its limits."""
    limits = OPTIONS[name]
    converted = _converted(name, value, folder)
    if limits.choices and converted not in limits.choices:
        raise SettingError(name, f"must be one of {', '.join(limits.choices)}")
    if limits.low is not None and not limits.low <= converted <= limits.high:
        raise SettingError(name, f"must lie between {limits.low} and {limits.high}")
    rule = RULES.get(name)
    return converted if rule is None else rule(name, converted)


def _converted(name: str, value: object, folder: Path) -> Any:
    kind = _HINTS[name]
    if kind in {tuple[str, ...], tuple[Path, ...]} and isinstance(value, (list, tuple)):
        if kind == tuple[Path, ...]:
            return tuple(_path(name, part, folder) for part in value)
        if all(isinstance(part, str) for part in value):
            return tuple(value)
    elif kind == Path | None and value is None:
        return None
    elif kind in {Path, Path | None}:
        return _path(name, value, folder)
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    article = "" if kind is bool else "a "
    raise SettingError(name, f"must be {article}{_KINDS[kind]}")


def _path(name: str, value: object, folder: Path) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise SettingError(name, "must be a path")
    try:
        return (folder / Path(value).expanduser()).absolute()
    except RuntimeError:
        raise SettingError(name, "begins with ~ and the home folder is unknown") from None


def _check_together(settings: Settings) -> None:
    """Refuse values that are each fine and make no sense together."""
    if settings.embedded_database == bool(settings.database_url):
        raise SettingError("database_url", "set either this or embedded_database = true")
    if settings.listen_peer == settings.listen_api and split_address(settings.listen_peer)[1] != 0:
        raise SettingError("listen_api", "must differ from listen_peer")
    if settings.backoff_base_s > settings.backoff_cap_s:
        raise SettingError("backoff_base_s", "must not exceed backoff_cap_s")
    if settings.nonce_retention_s < 2 * settings.clock_window_s:
        # A request is acceptable from window before to window after its creation.
        raise SettingError("nonce_retention_s", "must be at least twice clock_window_s, or a replay could pass")
    _check_tls(settings)
    if settings.deliver_by_days > settings.retain_days:
        raise SettingError("deliver_by_days", "must not exceed retain_days")
    if settings.batch_bytes_max + _BATCH_OVERHEAD_BYTES > settings.body_bytes_max:
        raise SettingError("body_bytes_max", f"must exceed batch_bytes_max by {_BATCH_OVERHEAD_BYTES}")


def _check_tls(settings: Settings) -> None:
    for which in ("", "client_"):
        certificate, key = (f"peer_tls_{which}{part}_file" for part in ("certificate", "key"))
        if (getattr(settings, certificate) is None) != (getattr(settings, key) is None):
            raise SettingError(certificate, f"set both this and {key}, or neither")
    if settings.peer_tls_certificate_file is None:
        if settings.peer_tls_client_ca_file is not None:
            raise SettingError("peer_tls_client_ca_file", "needs peer_tls_certificate_file: else a proxy ends TLS")
    elif not settings.base_url.startswith("https:"):
        raise SettingError("base_url", "must be https, since peer_tls_certificate_file is set")
