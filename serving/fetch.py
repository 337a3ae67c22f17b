"""Pictures from https URLs, from listed hosts alone; whatever is in doubt is refused.

A caller who may name a URL may try to make this service ask for what only it can reach: a cloud's metadata, a
neighbour's admin page (SSRF). So the host must be on the operator's list, its name is looked up once, every address
that comes back must be public, and the connection goes to those very addresses: a second answer of a hostile name
server (DNS rebinding) is never asked for. No redirect is followed, no proxy or .netrc of the environment is used, and
nothing is decompressed. What a server sends is bounded in bytes and in time, and so is how many are asked at once.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from complexity.errors import InvalidInput
from serving.addresses import Address, addresses_of, is_public
from serving.failures import Refused, shown

MOST_URL_CHARS = 4096  # signed URLs have up to about 2000
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "m3-router"}
PARTS = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(#.*)?")
AUTHORITY = re.compile(r"(?P<host>[^:\[\]@]+|\[[^\[\]@]+\])(:(?P<port>[0-9]{1,5}))?")
LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"({LABEL}\.)*(?!([0-9]+|0x[0-9a-f]*)$){LABEL}")  # 0x7f.1 and 2130706433 are no names
MOST_NAME_CHARS = 253


@dataclass(frozen=True)
class _Lane:
    """What the hosts of one entry of the list share, and those of others don't: a slow one takes these places alone."""

    slots: asyncio.Semaphore
    threads: ThreadPoolExecutor  # of lookups; one that is given up goes on until the system gives up


@dataclass(frozen=True)
class _Target:
    """A URL that may be asked."""

    host: str
    url: URL  # built anew from the parts that were checked
    lane: _Lane


class PictureFetcher:
    """Fetches pictures from listed hosts; used on one event loop, where calls overlap.

    Args:
        hosts: who may be asked: names, public addresses, and *.example.com for all names below example.com, itself
            not among them; with none, every URL is refused.
        max_bytes: the largest picture.
        timeout_s: the most that a fetch takes, with its wait for a turn, lookup, connecting, TLS and reading.
        resolve: host name -> its addresses, called in a thread; raises OSError where there is no such name.
        public: whether an address may be connected to.
        ssl_context: what certificates are checked against; None: the system's authorities.
        ports: those that a URL may name; one without a port means 443.
        concurrent: fetches at the same time; each holds up to `max_bytes`.
        per_entry: those of them for one entry of `hosts`; a slow entry holds up others only together with as many
            more as fill `concurrent`.

    Raises:
        InvalidInput: an entry of `hosts` is neither a name, a public address nor *.example.com.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        max_bytes: int,
        timeout_s: float,
        resolve: Callable[[str], Sequence[str]] = addresses_of,
        public: Callable[[Address], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
        ports: Sequence[int] = (443,),
        concurrent: int = 32,
        per_entry: int = 8,
    ):
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._public = public
        self._ssl = ssl.create_default_context() if ssl_context is None else ssl_context
        self._ports = tuple(ports)
        self._slots = asyncio.Semaphore(concurrent)
        self._lanes = {
            entry: _Lane(asyncio.Semaphore(per_entry), ThreadPoolExecutor(per_entry, "picture-lookup"))
            for entry in _entries(hosts, public)
        }

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes behind a URL, whatever they are; `param` is the request's field that holds it, for errors.

        Raises:
            Refused: with a code for each cause: invalid_image_url, picture_scheme_not_allowed,
                picture_port_not_allowed, picture_host_not_allowed, picture_host_unknown, picture_address_blocked,
                picture_tls_failed, picture_redirected, picture_not_served (any status but 200), picture_encoded,
                picture_too_large (413; the others 400), picture_fetch_timeout, picture_fetch_failed.
        """
        try:
            target = self._target(url)
            async with asyncio.timeout(self._timeout_s), target.lane.slots, self._slots:
                return await self._get(target, await self._addresses(target))
        except Refused as refused:
            cause = refused
        except TimeoutError:
            message = f"the picture wasn't fetched within {self._timeout_s:g} s"
            cause = Refused(400, "picture_fetch_timeout", message)
        except aiohttp.ClientSSLError:
            message = "the picture's host has no valid certificate for its name, or TLS failed"
            cause = Refused(400, "picture_tls_failed", message)
        except (aiohttp.ClientError, OSError):  # their messages repeat the URL, or what the server sent
            message = "the picture's host can't be reached, or its answer is broken"
            cause = Refused(400, "picture_fetch_failed", message)
        raise Refused(cause.status, cause.code, str(cause), param)

    async def close(self) -> None:
        """Let go of the threads; nothing is fetched after it."""
        for lane in self._lanes.values():
            lane.threads.shutdown(wait=False, cancel_futures=True)

    def _target(self, url: str) -> _Target:
        """A URL, read once and strictly."""
        if len(url) > MOST_URL_CHARS:
            message = f"the URL has {len(url)} characters; at most {MOST_URL_CHARS} are accepted"
            raise Refused(400, "invalid_image_url", message)
        if not all("!" <= char <= "~" and char != "\\" for char in url):
            message = "the URL holds a space, backslash, control or non-ASCII character; percent-encode it"
            raise Refused(400, "invalid_image_url", message)
        parts = PARTS.fullmatch(url)
        if parts is None:
            raise Refused(400, "invalid_image_url", "the URL is not of the form https://host/path")
        if parts["scheme"].lower() != "https":
            raise Refused(400, "picture_scheme_not_allowed", "pictures are fetched from https URLs only")
        authority = AUTHORITY.fullmatch(parts["authority"])
        if authority is None:  # not repeated: it may hold a password
            message = "between https:// and the path, only host or host:443 is accepted, without a user or password"
            raise Refused(400, "invalid_image_url", message)
        port = int(authority["port"] or 443)
        if port not in self._ports:
            allowed = ", ".join(map(str, self._ports))
            raise Refused(400, "picture_port_not_allowed", f"port {port} is not accepted; choose one of {allowed}")
        host = _host(authority["host"])
        lane = None if host is None else self._lane(host)
        if host is None or lane is None:
            message = f"pictures are not fetched from {shown(authority['host'])}: it is not one of the listed hosts"
            raise Refused(400, "picture_host_not_allowed", message)
        bracketed = f"[{host}]" if ":" in host else host
        rebuilt = f"https://{bracketed}:{port}{parts['path'] or '/'}{parts['query'] or ''}"
        return _Target(host, URL(rebuilt, encoded=True), lane)  # encoded: a signed URL must stay as it is

    def _lane(self, host: str) -> _Lane | None:
        labels = host.split(".")
        entries = [host, *("*." + ".".join(labels[i:]) for i in range(1, len(labels)))]
        return next((self._lanes[entry] for entry in entries if entry in self._lanes), None)

    async def _addresses(self, target: _Target) -> list[Address]:
        """Where a target is, by the only lookup of its name; refuses it if any of the addresses is not public."""
        address = _address(target.host)
        if address is not None:
            return [address]  # a listed one is public
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(target.lane.threads, self._resolve, target.host)
        except OSError:
            found = []
        if not found:
            raise Refused(400, "picture_host_unknown", f"the host {shown(target.host)} has no address")
        addresses = [address for address in map(_address, found) if address is not None and self._public(address)]
        if len(addresses) < len(found):
            message = f"the host {shown(target.host)} has an address that is not on the public internet"
            raise Refused(400, "picture_address_blocked", message)
        return addresses

    async def _get(self, target: _Target, addresses: Sequence[Address]) -> bytes:
        """Ask one of the addresses, in a session of its own: nothing stays for the next fetch."""
        sockets: list[socket.socket] = []

        def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
            sockets.append(socket.socket(*info[:3]))
            return sockets[-1]

        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses),
            ssl=self._ssl,
            use_dns_cache=False,
            force_close=True,
            socket_factory=open_socket,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline for all: fetch's
            auto_decompress=False,
            trust_env=False,
        )
        try:
            async with session.get(target.url, allow_redirects=False) as response:
                try:
                    _check_head(response)
                    return await self._read(response)
                finally:  # the session aborts the connection; the response would wait for TLS's goodbye, up to 30 s
                    await session.close()
        finally:
            await session.close()
            for each in sockets:  # and these are the connections that aiohttp has let go of, to end in the same way
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """A body, of which the length that the server claims is believed only where it is too much."""
        too_large = Refused(413, "picture_too_large", f"the picture has more than {self._max_bytes} bytes")
        if (response.content_length or 0) > self._max_bytes:
            raise too_large
        body = bytearray()  # not a list of chunks: each would cost fifty bytes, and may hold one
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                raise too_large
        return bytes(body)


class _Pinned(AbstractResolver):
    """Answers aiohttp with addresses that were checked; it looks nothing up, however often it is asked."""

    def __init__(self, addresses: Sequence[Address]):
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=families[address.version],
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _check_head(response: aiohttp.ClientResponse) -> None:
    """Refuse whatever is not a plain 200."""
    if 300 <= response.status < 400:
        message = "the picture's host redirects; name the URL that it redirects to"
        raise Refused(400, "picture_redirected", message)
    if response.status != 200:
        raise Refused(400, "picture_not_served", f"the picture's host answers with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        message = "the picture's host compresses what it sends, though asked not to"
        raise Refused(400, "picture_encoded", message)


def _entries(hosts: Sequence[str], public: Callable[[Address], bool]) -> list[str]:
    """The allowlist in its one spelling."""
    if isinstance(hosts, str):
        raise InvalidInput(f"hosts={hosts!r} is one text; a list of hosts is needed", "hosts")
    entries = []
    for entry in hosts:
        below = entry.startswith("*.")
        host = _host(f"[{entry}]" if ":" in entry and not entry.startswith("[") else entry.removeprefix("*."))
        address = None if host is None else _address(host)
        if host is None or (below and (address is not None or "." not in host)):
            message = "is not a host's name, a public address, or *.example.com"
            raise InvalidInput(f"{shown(entry)} in hosts {message}; names are written in ASCII (xn--...)", "hosts")
        if address is not None and not public(address):
            raise InvalidInput(f"{shown(entry)} in hosts is not an address of the public internet", "hosts")
        entries.append(f"*.{host}" if below else host)
    return entries


def _host(text: str) -> str | None:
    """A host as written in a URL, in its one spelling; None where it is neither a name nor an address."""
    if text.startswith("["):
        address = _address(text[1:-1]) if text.endswith("]") else None
        return str(address) if address is not None and address.version == 6 else None
    host = text.lower().removesuffix(".")
    if _address(host) is not None:
        return host
    return host if len(host) <= MOST_NAME_CHARS and NAME.fullmatch(host) else None


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
