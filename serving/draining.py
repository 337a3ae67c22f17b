"""Stopping without cutting anybody off: HAProxy takes nothing new and ends with its last answer."""

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

DRAIN_S = 65  # for requests under way when told to stop: a little more than answer_timeout_s
POLL_S = 0.05


def admin_sockets(path: Path) -> list[Path]:
    """HAProxy's admin sockets: Ray puts them in folders of its own making beside the path that it was given."""
    return [found for found in path.parent.rglob(path.name) if found.is_socket()]


def drain(admin: Path, hurry: threading.Event, limit_s: float = DRAIN_S) -> None:
    """Have HAProxy take no more requests, and wait until those under way have their answers.

    Args:
        admin: HAProxy's admin socket.
        hurry: set when nobody wants to wait any longer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            asked.connect(str(admin))
            asked.sendall(b"show info\n")
            told = b"".join(iter(lambda: asked.recv(65_536), b"")).decode()
        pid = int(re.search(r"^Pid: (\d+)$", told, re.MULTILINE)[1])  # type: ignore[index]
        os.kill(pid, signal.SIGUSR1)  # its soft stop: it listens no more, and ends with its last connection
    except (OSError, TypeError):  # it isn't there: nothing is under way
        return
    deadline_s = time.monotonic() + limit_s
    while _runs(pid) and time.monotonic() < deadline_s and not hurry.wait(POLL_S):
        pass


def _runs(pid: int) -> bool:
    """Whether a process is there and hasn't ended; one that merely awaits its parent has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
