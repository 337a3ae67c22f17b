"""The command serve-m3: runs ray_app.yaml in a Ray of its own until it is told to stop, and then stops all of it."""

import argparse
import contextlib
import io
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from complexity.errors import M3Error
from serving import fast_ray
from serving.config import StartError, check_folders, read_config
from serving.draining import admin_sockets, drain
from serving.settings import shipped_config

if TYPE_CHECKING:
    from ray.serve._private.client import ServeControllerClient
    from ray.serve.schema import ApplicationStatusOverview, ServeDeploySchema

START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 6
POLL_S = 0.2
LOGS = "/tmp/ray/session_latest/logs/serve"
CONFIG = Path("ray_app.yaml")  # of the working directory
OBJECT_STORE_BYTES = 256 * 2**20  # pictures on their way to the replica; Ray's default takes 30% of the memory


@dataclass(frozen=True)
class Address:
    """Where HTTP is served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where this machine reaches the service."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{host}:{self.port}"


def main(argv: list[str] | None = None) -> int:
    """`serve-m3`: exit 0 when told to stop, 2 with one line when it can't start."""
    parser = argparse.ArgumentParser(prog="serve-m3", description=__doc__)
    parser.add_argument(
        "--config", type=Path, help="default: ray_app.yaml of this folder, else the one that came with this command"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the one that came with this command, to write your own from, and exit",
    )
    parser.add_argument("--host", help="address to listen on; default: http_options.host of the config")
    parser.add_argument("--port", type=int, help="port to listen on; default: http_options.port of the config")
    parser.add_argument(
        "--metrics-port", type=int, help="port of 127.0.0.1 for Prometheus, at /metrics; default: any free one"
    )
    args = parser.parse_args(argv)
    if args.print_config:
        print(shipped_config().read_text(), end="")
        return 0
    given = args.config or (CONFIG if CONFIG.is_file() else None)
    stop = threading.Event()
    haproxy = tempfile.TemporaryDirectory(prefix="m3-haproxy-")
    try:
        # Read by every process of Ray, this one included, so they are set before anything imports it.
        os.environ |= environment(os.environ, Path(haproxy.name))
        file = (given or shipped_config()).resolve()
        config = read_config(given or file, args.host, args.port)
        address = Address(config.http_options.host, config.http_options.port)
        check_free(address)
        if given is not None:  # the shipped one names no relative paths
            os.chdir(file.parent)  # from where the file's count
        check_folders(config)
        if args.metrics_port is not None:
            check_free(Address("127.0.0.1", args.metrics_port))
        run(config, address, stop, lambda: read_config(file, args.host, args.port), args.metrics_port)
    except M3Error as error:
        print(f"serve-m3: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit):  # told to stop before it was ready
        return 0
    finally:
        haproxy.cleanup()
    return 0


def environment(given: os._Environ[str] | dict[str, str], folder: Path) -> dict[str, str]:
    """Ray's settings for a service on one machine, where the user hasn't chosen otherwise; `folder` is HAProxy's."""
    wanted = {
        **fast_ray.environment(folder, given),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A token of our own: without one, Ray writes ~/.ray/auth_token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # All of Ray on the loopback address; it would listen on every interface. By default so on Windows and macOS.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # On a busy machine the HTTP proxy takes longer than Ray's 5 s to come up, and Ray would kill it for that.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    }
    if "RAY_AUTH_TOKEN_PATH" in given or given.get("RAY_AUTH_MODE", "token") != "token":
        del wanted["RAY_AUTH_TOKEN"]
    return {name: value for name, value in wanted.items() if name not in given}


def check_free(address: Address) -> None:
    """Refuse an address that can't be listened on, before anything is started.

    Raises:
        StartError: names the address and the reason.
    """
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(f"can't listen on {address.host}:{address.port}: {reason}") from None


def run(
    config: "ServeDeploySchema",
    address: Address,
    stop: threading.Event,
    read: Callable[[], "ServeDeploySchema"],
    metrics_port: int | None = None,
) -> None:
    """Start Ray and the application, say when it is ready, serve until `stop` is set or a signal comes, stop all.

    Requests under way are answered first, unless a second signal comes.
    SIGHUP has the config read again: a changed `user_config` is taken over by the running replicas, other changes
    replace them.
    """
    import ray

    changed, hurry = threading.Event(), threading.Event()

    def told_to_stop(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    def told_to_read(signum: int, frame: FrameType | None) -> None:
        changed.set()

    terminal = sys.stderr
    print("serve-m3: starting, this takes about 20 s ...", file=terminal, flush=True)
    try:
        with _muted():
            client = start(config, metrics_port)
            for signum in (signal.SIGINT, signal.SIGTERM):  # after ray.init, which sets handlers of its own
                signal.signal(signum, told_to_stop)
            signal.signal(signal.SIGHUP, told_to_read)
            ready = wait_until_ready(address, stop)
        if ready:
            print(f"M3 router ready on {address.url}", file=terminal)
            print(f"try: curl {address.url}/v1/models", file=terminal, flush=True)
        while not stop.wait(POLL_S):
            if changed.is_set():
                changed.clear()
                redeploy(client, read, terminal)
        print("serve-m3: stopping ...", file=terminal, flush=True)
        with _muted():
            for admin in admin_sockets(Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])):
                drain(admin, hurry)
            client.shutdown(timeout_s=STOP_TIMEOUT_S)
    finally:
        with _muted():
            ray.shutdown()


def start(config: "ServeDeploySchema", metrics_port: int | None = None) -> "ServeControllerClient":
    """Start a Ray of our own on this machine and hand it the application, without waiting for that.

    Raises:
        StartError: Ray itself doesn't come up.
    """
    import ray
    from ray.serve._private.api import serve_start  # what `serve run` calls: the public start() takes no config
    from ray.serve.schema import LoggingConfig

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        ray.init(
            address="local",
            namespace="serve",
            include_dashboard=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _metrics_export_port=metrics_port,
        )
        client = serve_start(
            http_options=config.http_options.model_dump(),
            proxy_location=config.proxy_location,
            global_logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )
        client.deploy_apps(config)
    except Exception as error:  # Ray raises whatever its parts raised
        raise StartError(
            f"Ray did not start: {last_error(f'{type(error).__name__}: {error}')} (more in {LOGS})"
        ) from error
    return client


def redeploy(client: "ServeControllerClient", read: Callable[[], "ServeDeploySchema"], terminal: TextIO) -> None:
    """Read the config again and hand it to the running service; one that is wrong changes nothing."""
    try:
        config = read()
        check_folders(config)
        with _muted():
            client.deploy_apps(config)
        print("serve-m3: the config was read again", file=terminal, flush=True)
    except Exception as error:  # the service goes on as it was
        print(f"serve-m3: the config was not taken over: {error}", file=terminal, flush=True)


def wait_until_ready(address: Address, stop: threading.Event) -> bool:
    """Wait until /ready answers 200; False when told to stop before.

    Raises:
        StartError: the application failed to start, with the reason that Ray reports; or it took too long.
    """
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        applications = serve.status().applications
        for application in applications.values():
            if application.status == ApplicationStatus.DEPLOY_FAILED:
                raise StartError(f"{reason_of(application)} (more in {LOGS})")
        running = all(each.status == ApplicationStatus.RUNNING for each in applications.values())
        if applications and running and _answers(f"{address.url}/ready"):
            return True
        if stop.wait(POLL_S):
            return False
    raise StartError(f"not ready after {START_TIMEOUT_S} s (more in {LOGS})")


def reason_of(application: "ApplicationStatusOverview") -> str:
    """Why an application failed to start: what its failed deployments say; others may say that they are slow."""
    told = [each for each in application.deployments.values() if each.message]
    failed = [each for each in told if each.status == "DEPLOY_FAILED"] or told
    return "; ".join(last_error(each.message) for each in failed) or last_error(application.message)


def last_error(report: str) -> str:
    """The exception at the end of a remote traceback, as one line without its module."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    errors = [match for line in lines if (match := re.fullmatch(r"(?:\w+\.)*([A-Z]\w+: .+)", line))]
    return errors[-1].group(1) if errors else lines[-1]


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep the chatter that Ray relays from its processes off the terminal; its log files have it."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
