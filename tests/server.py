"""Runs the command serve-m3 as a user would, in a process of its own, for the tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from serving.fast_ray import free_ports
from serving.settings import ROOT

SERVE_M3 = [sys.executable, "-c", "import sys; from serving.launch import main; sys.exit(main())"]
SERVE_M3 += ["--config", str(ROOT / "ray_app.yaml")]
START_S, STOP_S = 600, 60


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    return free_ports(1)[0]


@dataclass(frozen=True)
class Server:
    """A running serve-m3."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def children(self) -> set[int]:
        """Ids of all processes that descend from it."""
        parents = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    pass  # it ended meanwhile
        found: set[int] = {self.process.pid}
        while grown := {child for child, parent in parents.items() if parent in found} - found:
            found |= grown
        return found - {self.process.pid}

    def processes(self, title: str) -> list[int]:
        """Ids of those whose command begins so, such as `ray::ServeReplica:m3:Ingress`."""
        found = []
        for pid in self.children():
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                    found.append(pid)
            except OSError:
                pass  # it ended meanwhile
        return found

    def replicas(self) -> list[int]:
        """Ids of the processes that hold the model."""
        return self.processes("ray::ServeReplica:m3:M3")

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(signum)
        return self.process.wait(STOP_S)


def write_config(file: Path, args: Mapping[str, object], **deployments: Mapping[str, object]) -> None:
    """The shipped ray_app.yaml with other `args`, and other options of its deployments, by their names."""
    told = yaml.safe_load((ROOT / "ray_app.yaml").read_text())
    (application,) = told["applications"]
    application["args"] |= args
    for deployment in application["deployments"]:
        deployment |= deployments.get(deployment["name"], {})
    file.write_text(yaml.safe_dump(told))


def wait_for(what: Callable[[], bool], limit_s: float = 90) -> None:
    """Come back when it is so; fail when it isn't in time."""
    deadline_s = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def start(
    log: Path, *options: str, command: Sequence[str] = SERVE_M3, folder: Path | None = None, **environment: str
) -> Server:
    """Start serve-m3 on a free port, with more in its environment, and wait until it says that it is ready.

    Args:
        command: another serve-m3 than this checkout's.
        folder: where it is started; unless given, here.
    """
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | environment,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    deadline_s = time.monotonic() + START_S
    while "M3 router ready on" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline_s:
            process.kill()
            raise RuntimeError(f"serve-m3 did not become ready:\n{log.read_text()}")
        time.sleep(0.2)
    return server
