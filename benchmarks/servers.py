"""Servers in processes of their own, for benchmarks/serve.py: the real service, and the naive one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

ROOT = Path(__file__).parents[1]
START_S = 300
REPLICA = re.compile(rb"^ray::ServeReplica:m3:(?!Ingress)")  # processes that hold the model


class Service:
    """A server in processes of its own, with the CPU time that all of them have used."""

    def __init__(self, command: Sequence[str], port: int, log: Path):
        self.url = f"http://127.0.0.1:{port}"
        self._log = log.open("wb")
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=self._log, stderr=self._log, start_new_session=True)

    def __enter__(self) -> "Service":
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        self.__exit__()
        raise SystemExit(f"serve.py: the service did not start; see {self._log.name}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)

    def cpu(self) -> "Cpu":
        """What the process and its descendants have used so far."""
        parents, names, seconds = {}, {}, {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    stat, name = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
                except OSError:
                    continue  # it ended meanwhile
                pid = int(folder.name)
                parents[pid], names[pid], seconds[pid] = int(_columns(stat)[1]), name, _seconds(stat)
        family = {self._process.pid}
        while grown := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= grown
        replicas = [pid for pid in family if REPLICA.search(names[pid])]
        return Cpu(sum(seconds[pid] for pid in family), {pid: _threads_s(pid) for pid in replicas})


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a service: of all its processes, and of each thread of its replicas."""

    all_s: float
    threads_s: dict[int, dict[int, float]]

    def since(self, before: "Cpu") -> tuple[float, float]:
        """Of all, and of the busiest thread of each replica, in which its engine works."""
        engines_s = sum(
            max(used - before.threads_s[pid].get(thread, 0.0) for thread, used in threads.items())
            for pid, threads in self.threads_s.items()
        )
        return self.all_s - before.all_s, engines_s


def _columns(stat: str) -> list[str]:
    return stat.rpartition(")")[2].split()


def _seconds(stat: str) -> float:
    columns = _columns(stat)
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def _threads_s(pid: int) -> dict[int, float]:
    return {int(task.name): _seconds((task / "stat").read_text()) for task in Path(f"/proc/{pid}/task").iterdir()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def routed_service(folder: Path, **settings: object) -> Service:
    """The service of ray_app.yaml with other `args`; of several pools, each has one replica."""
    config = yaml.safe_load((ROOT / "ray_app.yaml").read_text())
    config["applications"][0]["args"] |= settings
    if "pools" in settings:
        config["applications"][0]["deployments"] = []
    file, port = folder / "ray_app.yaml", free_port()
    file.write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).parent / "serve-m3"), "--config", str(file), "--port", str(port)]
    return Service(command, port, folder / "serve.log")


def naive_service(folder: Path) -> Service:
    port = free_port()
    return Service([sys.executable, str(Path(__file__).with_name("naive.py")), str(port)], port, folder / "naive.log")
