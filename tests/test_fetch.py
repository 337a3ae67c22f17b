"""Pictures from URLs, against real TLS servers on loopback: who is asked, what is believed, what an attacker gets."""

import asyncio
import datetime
import gzip
import ipaddress
import os
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from complexity.errors import InvalidInput
from serving.addresses import Address, is_public
from serving.failures import Refused
from serving.fetch import MOST_URL_CHARS, PictureFetcher

HOST = "pictures.test"
PARAM = "messages.0.content.1.image_url.url"
PICTURE = bytes(range(256)) * 20
LIMIT = len(PICTURE)

BAD_ENTRIES = (
    """
    * *. *.com **.example.com a.*.example.com *example.com https://example.com a/b example.com:443 example.com/
    me@example.com example..com .example.com 2130706433 0x7f.1 127.1 1.2.3.4.5 *.8.8.8 *.8.8.8.8 8.8.8.0/24
    [8.8.8.8] 127.0.0.1 10.0.0.1 169.254.169.254 ::1 [::1] ::ffff:8.8.8.8 fd00:ec2::254 2606:4700::1%1
""".split()
    + ["", "example .com", "b\u00fccher.de", "\uff45xample.com"]
)

NOT_PUBLIC = """
    0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 127.0.0.1
    127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.170.2 172.16.0.0 172.31.255.255 192.0.0.1
    192.0.0.9 192.0.0.170 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0
    198.19.255.255 198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1
    ::808:808 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:0:808:808 64:ff9b::7f00:1
    64:ff9b::808:808 64:ff9b:1::1 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 100::1 100:0:0:1::1 200::1 1fff::1 2001::1
    2001:0:808:808::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff:ffff::1 2001:db8::1 2002::1 2002:7f00:1::1
    2002:808:808::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1 8000::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1
    fe80::a9fe:a9fe fec0::1 ff02::1 ff0e::1 2606:4700::1%1
""".split()

PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
    168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0
    198.17.255.255 198.20.0.0 223.255.255.255 2000::1 2001:200::1 2001:4860:4860::8888 2003::1
    2606:4700:4700::1111 2a00:1450::1 3ffe:ffff::1 3fff:1000::1
""".split()


def loopback(address: Address) -> bool:
    """Here 127.0.0.1 stands for the public internet, and nothing else does."""
    return str(address) == "127.0.0.1"


def found(host: str) -> list[str]:
    return ["127.0.0.1"]


def never(host: str) -> list[str]:
    raise AssertionError(f"{host} was looked up")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key in one file; good for these names and no others."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own")])
    names = [x509.DNSName(HOST), x509.DNSName(f"*.{HOST}"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_bytes(
        made.public_bytes(encoding)
        + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


class Site:
    """A host that serves pictures, and fetchers that trust its certificate."""

    def __init__(self, port: int, certificate: Path):
        self.port = port
        self.certificate = certificate
        self.fetchers: list[PictureFetcher] = []

    def url(self, path: str = "/picture.png", host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"

    def fetcher(self, hosts: Sequence[str] = (HOST,), **options) -> PictureFetcher:
        settings = {
            "max_bytes": LIMIT,
            "timeout_s": 30.0,
            "resolve": found,
            "public": loopback,
            "ssl_context": ssl.create_default_context(cafile=self.certificate),
            "ports": (self.port,),
        }
        self.fetchers.append(PictureFetcher(hosts, **(settings | options)))
        return self.fetchers[-1]

    async def close(self) -> None:
        for fetcher in self.fetchers:
            await fetcher.close()


def server_context(certificate: Path, names: list[str | None] | None = None) -> ssl.SSLContext:
    """TLS for a server, which notes the name that each client asks for (SNI)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if names is not None:
        context.sni_callback = lambda _socket, name, _context: names.append(name)
    return context


@asynccontextmanager
async def web_site(
    certificate: Path, answer: Callable[[web.BaseRequest], object], names: list[str | None] | None = None
) -> AsyncIterator[Site]:
    """A real aiohttp server with one handler for everything."""
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    tcp = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(certificate, names))
    await tcp.start()
    site = Site(runner.addresses[0][1], certificate)
    try:
        yield site
    finally:
        await site.close()
        await runner.cleanup()


@asynccontextmanager
async def rough_site(certificate: Path, reply: bytes, asked: list[bytes] | None = None) -> AsyncIterator[Site]:
    """A server that sends these very bytes, right or wrong, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(certificate))
    site = Site(server.sockets[0].getsockname()[1], certificate)
    try:
        yield site
    finally:
        await site.close()
        server.close()


async def picture(request: web.BaseRequest) -> web.Response:
    return web.Response(body=PICTURE)


async def refused(fetcher: PictureFetcher, url: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await fetcher.fetch(url, PARAM)
    assert caught.value.param == PARAM
    return caught.value


async def test_a_picture_of_a_listed_host_is_fetched(certificate: Path):
    """The path and query go out as they were written, the fragment doesn't, and nothing of ours goes with them."""
    requests: list[web.BaseRequest] = []
    names: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requests.append(request)
        response = web.Response(body=PICTURE)
        response.set_cookie("who", "you")
        return response

    async with web_site(certificate, answer, names) as site:
        fetcher = site.fetcher()
        path = "/a%2Fb//..%2f/c.png?X-Sig=%2B%2f+=&x=[1]|{2}"
        assert await fetcher.fetch(site.url(path + "#here"), PARAM) == PICTURE
        assert await fetcher.fetch(site.url(path), PARAM) == PICTURE
    assert [request.raw_path for request in requests] == [path, path]
    assert names == [HOST, HOST]
    assert requests[1].headers["Host"] == f"{HOST}:{site.port}"
    assert requests[1].headers["Accept-Encoding"] == "identity"
    assert set(requests[1].headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}


@pytest.mark.parametrize("host", ["Pictures.TEST", "pictures.test.", "one.pictures.test", "127.0.0.1"])
async def test_a_host_is_known_in_other_spellings(certificate: Path, host: str):
    """Case and the dot of the root make no difference; *.name covers what is below it; an address may be listed."""
    async with web_site(certificate, picture) as site:
        fetcher = site.fetcher([HOST.upper(), f"*.{HOST}", "127.0.0.1"])
        assert await fetcher.fetch(site.url(host=host), PARAM) == PICTURE
        assert await fetcher.fetch(site.url(host=host).replace("https", "HTTPS"), PARAM) == PICTURE


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "invalid_image_url"),
        ("pictures.test/a.png", "invalid_image_url"),
        ("//pictures.test/a.png", "invalid_image_url"),
        ("https:pictures.test/a.png", "invalid_image_url"),
        ("https:/pictures.test/a.png", "invalid_image_url"),
        ("https:///a.png", "invalid_image_url"),
        ("https://", "invalid_image_url"),
        ("javascript:alert(1)", "invalid_image_url"),
        ("https://pictures.test/" + "a" * MOST_URL_CHARS, "invalid_image_url"),
        *[(f"https://pictures.test/a{char}b", "invalid_image_url") for char in "\0\t\n\r \x1f\x7f\\\x85\xa0é\u2028"],
        ("https://pictures.test/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", "invalid_image_url"),
        ("\nhttps://pictures.test/", "invalid_image_url"),
        ("https://evil.test\\@pictures.test/", "invalid_image_url"),
        ("https://pictures\uff0etest/", "invalid_image_url"),
        ("https://\uff50ictures.test/", "invalid_image_url"),
        ("https://me:secret@pictures.test/", "invalid_image_url"),
        ("https://pictures.test@evil.test/", "invalid_image_url"),
        ("https://pictures.test:443@evil.test/", "invalid_image_url"),
        ("https://@pictures.test/", "invalid_image_url"),
        ("https://pictures.test:/", "invalid_image_url"),
        ("https://pictures.test:https/", "invalid_image_url"),
        ("https://pictures.test:+443/", "invalid_image_url"),
        ("https://pictures.test:-443/", "invalid_image_url"),
        ("https://pictures.test:4294967739/", "invalid_image_url"),  # 443 in 32 bits
        ("https://pictures.test:443:443/", "invalid_image_url"),
        ("https://[::1/", "invalid_image_url"),
        ("https://[::1]evil/", "invalid_image_url"),
        ("http://pictures.test/", "picture_scheme_not_allowed"),
        ("file:///etc/passwd", "picture_scheme_not_allowed"),
        ("ftp://pictures.test/", "picture_scheme_not_allowed"),
        ("https+unix://pictures.test/", "picture_scheme_not_allowed"),
        ("https://pictures.test:80/", "picture_port_not_allowed"),
        ("https://pictures.test:8443/", "picture_port_not_allowed"),
        ("https://pictures.test:0/", "picture_port_not_allowed"),
        ("https://pictures.test:65979/", "picture_port_not_allowed"),  # 443 in 16 bits
        *[
            (f"https://{host}/", "picture_host_not_allowed")
            for host in (
                "evil.test",
                "evil.test#@pictures.test",
                "evil.test?@pictures.test",
                "evil.test/@pictures.test",
                "cdn.test",  # *.cdn.test is what is below it
                "evilcdn.test",
                ".cdn.test",
                "a..cdn.test",
                "-a.cdn.test",
                "*.cdn.test",
                "a" * 64 + ".cdn.test",
                "a." * 130 + "cdn.test",
                "xpictures.test",
                "a.pictures.test",
                "pictures.test.evil.test",
                "pictures.test..",
                ".pictures.test",
                "pictures..test",
                "pictures%2etest",
                "%70ictures.test",
                "pictures.test%00.evil.test",
                "pictures.test%2f.evil.test",
                "localhost",
                "127.0.0.1",
                "127.0.0.1.",
                "127.1",
                "0x7f.1",
                "0x7f000001",
                "0177.0.0.1",
                "017700000001",
                "2130706433",
                "0",
                "8.8.8.8",
                "08.8.8.9",
                "8.8.2057",
                "134744073",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "[::ffff:8.8.8.9]",
                "[8.8.8.9]",
                "[2606:4700::2]",
                "[2606:4700::1%251]",
                "[2606:4700::1%1]",
                "[pictures.test]",
                "[v1.pictures.test]",
            )
        ],
    ],
)
async def test_what_is_refused_before_any_lookup(url: str, code: str):
    """By what is written, in whatever spelling: no name server and no host hears of it."""
    fetcher = PictureFetcher([HOST, "*.cdn.test", "8.8.8.9", "2606:4700::1"], LIMIT, 30, resolve=never)
    error = await refused(fetcher, url)
    assert (error.status, error.code) == (400, code)
    assert len(str(error)) < 200


async def test_an_empty_list_refuses_everything():
    """Fetching is opt-in."""
    fetcher = PictureFetcher([], LIMIT, 30, resolve=never)
    assert (await refused(fetcher, "https://pictures.test/")).code == "picture_host_not_allowed"


@pytest.mark.parametrize("entry", BAD_ENTRIES)
def test_a_list_with_a_bad_entry_is_refused(entry: str):
    """At the start, by name; a private address can't be listed either."""
    with pytest.raises(InvalidInput, match="in hosts") as caught:
        PictureFetcher([HOST, entry], LIMIT, 30)
    assert caught.value.param == "hosts"


def test_a_text_is_not_a_list():
    """Or each of its letters would be a host."""
    with pytest.raises(InvalidInput, match="a list of hosts is needed"):
        PictureFetcher("example.com", LIMIT, 30)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public(address: str):
    """Nor one that carries another, even a public one: mapped, 6to4, NAT64, Teredo."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_that_is_public(address: str):
    """Up to the edges of the ranges that aren't."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.2"],
        ["127.0.0.1", "10.0.0.1"],
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["127.0.0.1", "no address"],
    ],
)
async def test_every_address_of_a_name_must_be_public(certificate: Path, addresses: list[str]):
    """One that isn't refuses all, wherever it stands; nobody is asked."""
    requests: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requests.append(request)
        return web.Response(body=PICTURE)

    async with web_site(certificate, answer) as site:
        error = await refused(site.fetcher(resolve=lambda host: addresses), site.url())
    assert (error.status, error.code) == (400, "picture_address_blocked")
    assert requests == []
    assert not any(address in str(error) for address in addresses)


async def test_the_real_loopback_is_blocked():
    """Without the tests' stand-ins, a listed name of this machine is refused by its address."""
    fetcher = PictureFetcher(["localhost"], LIMIT, 30)
    assert (await refused(fetcher, "https://localhost/")).code == "picture_address_blocked"
    await fetcher.close()


@pytest.mark.parametrize("reply", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b""])
async def test_a_name_is_looked_up_once(certificate: Path, reply: bytes):
    """A name server that changes its mind (rebinding) isn't asked again, even where the client tries a second time."""
    lookups: list[str] = []
    asked: list[bytes] = []

    def rebinding(host: str) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) == 1 else ["10.0.0.1"]

    async with rough_site(certificate, reply, asked) as site:
        fetch = site.fetcher(resolve=rebinding).fetch(site.url(), PARAM)
        if reply:
            assert await fetch == b"abc"
        else:
            with pytest.raises(Refused, match="broken") as caught:
                await fetch
            assert caught.value.code == "picture_fetch_failed"
    assert lookups == [HOST]
    assert asked


async def test_a_name_that_is_not_known(certificate: Path):
    """Has its own code, whether the lookup fails or finds nothing."""

    def unknown(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "a secret of the resolver")

    async with web_site(certificate, picture) as site:
        for resolve in (unknown, lambda host: []):
            error = await refused(site.fetcher(resolve=resolve), site.url())
            assert (error.code, str(error)) == ("picture_host_unknown", f"the host '{HOST}' has no address")


async def test_a_certificate_must_be_valid_for_the_host(certificate: Path):
    """One for another name is refused, and so is one that no authority signed."""
    async with web_site(certificate, picture) as site:
        other = site.fetcher(["evil.test", f"*.{HOST}"])
        assert (await refused(other, site.url(host="evil.test"))).code == "picture_tls_failed"
        assert (await refused(other, site.url(host=f"a.b.{HOST}"))).code == "picture_tls_failed"
        stranger = site.fetcher(ssl_context=None)  # the system's authorities
        assert (await refused(stranger, site.url())).code == "picture_tls_failed"


async def test_a_server_that_does_not_speak_tls(certificate: Path):
    """Is told apart from one that isn't there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    site = Site(server.sockets[0].getsockname()[1], certificate)
    assert (await refused(site.fetcher(), site.url())).code == "picture_tls_failed"
    server.close()
    await server.wait_closed()
    assert (await refused(site.fetcher(), site.url())).code == "picture_fetch_failed"
    await site.close()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
async def test_a_redirect_is_not_followed(certificate: Path, status: int):
    """Not even to the same host; where it leads isn't repeated."""
    paths: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with web_site(certificate, answer) as site:
        error = await refused(site.fetcher(), site.url("/here"))
    assert (error.status, error.code) == (400, "picture_redirected")
    assert paths == ["/here"]
    assert "elsewhere" not in str(error)


@pytest.mark.parametrize("status", [201, 204, 206, 401, 404, 500, 503])
async def test_only_a_200_is_a_picture(certificate: Path, status: int):
    """The message has the number and nothing else that was sent."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, reason="a secret", text=None if status == 204 else "a secret")

    async with web_site(certificate, answer) as site:
        error = await refused(site.fetcher(), site.url())
    assert error.code == "picture_not_served"
    assert str(error) == f"the picture's host answers with status {status}"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity"])
async def test_nothing_is_decompressed(certificate: Path, encoding: str):
    """A bomb of a few kilobytes stays one."""
    bomb = gzip.compress(bytes(LIMIT * 200))
    assert len(bomb) < LIMIT

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": encoding})

    async with web_site(certificate, answer) as site:
        assert (await refused(site.fetcher(), site.url())).code == "picture_encoded"


async def test_the_largest_picture(certificate: Path):
    """One byte more is too much, with its length announced or not."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/announced":
            return web.Response(body=PICTURE)
        response = web.StreamResponse()
        if request.path == "/chunked":
            response.enable_chunked_encoding()
        await response.prepare(request)
        for byte in PICTURE:
            await response.write(bytes([byte]))
        return response

    async with web_site(certificate, answer) as site:
        for path in ("/announced", "/chunked", "/until-the-end"):
            assert await site.fetcher().fetch(site.url(path), PARAM) == PICTURE
            error = await refused(site.fetcher(max_bytes=LIMIT - 1), site.url(path))
            assert (error.status, error.code) == (413, "picture_too_large")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_endless_body_is_cut_off(certificate: Path, run: Callable[[Awaitable[None]], None]):
    """On Python's event loop and on Ray's, the server finds its client gone, and not only after 30 s."""

    async def scenario() -> None:
        gone = asyncio.Event()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(bytes(65536))
            finally:
                gone.set()

        async with web_site(certificate, answer) as site:
            assert (await refused(site.fetcher(), site.url())).code == "picture_too_large"
            await asyncio.wait_for(gone.wait(), 20)

    run(scenario())


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nabc", "picture_too_large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", "picture_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", "picture_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\nabc", "picture_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "picture_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n", "picture_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nSecret: " + b"a" * 100_000 + b"\r\n\r\nabc", "picture_fetch_failed"),
        (b"HTTP/1.1 200 OK\r\n" + b"Secret: a\r\n" * 10_000 + b"\r\nabc", "picture_fetch_failed"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: secret\r\nConnection: Upgrade\r\n\r\n", "picture_not_served"),
        (b"SSH-2.0-secret\r\n", "picture_fetch_failed"),
        (b"", "picture_fetch_failed"),
    ],
)
async def test_a_server_that_lies(certificate: Path, reply: bytes, code: str):
    """Lengths that aren't true, endless headers, no HTTP at all: refused, and nothing of it is repeated."""
    async with rough_site(certificate, reply) as site:
        error = await refused(site.fetcher(), site.url())
    assert error.code == code
    assert "secret" not in str(error).lower()


async def test_no_more_is_read_than_was_announced(certificate: Path):
    """What follows belongs to no answer; where it comes in one piece with the answer, that is refused as broken."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + bytes(LIMIT * 10)
    async with rough_site(certificate, reply) as site:
        try:
            assert await site.fetcher().fetch(site.url(), PARAM) == b"abc"
        except Refused as error:
            assert error.code == "picture_fetch_failed"


async def test_one_deadline_for_a_drip(certificate: Path):
    """A server that sends a byte now and then, and so never is silent for long, gets no more time."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"a")
            await asyncio.sleep(0.01)

    async with web_site(certificate, answer) as site:
        error = await refused(site.fetcher(timeout_s=0.7, max_bytes=10**9), site.url())
    assert (error.status, error.code) == (400, "picture_fetch_timeout")
    assert str(error) == "the picture wasn't fetched within 0.7 s"


async def test_the_deadline_covers_everything(certificate: Path):
    """The lookup, the handshake, the headers, and the wait for a turn."""
    freed = threading.Event()
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel accepts, nobody speaks

    def slow(host: str) -> list[str]:
        freed.wait(30)
        return ["127.0.0.1"]

    async def answer(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with web_site(certificate, answer) as site:
        port = silent.getsockname()[1]
        late = [
            (site.fetcher(timeout_s=0.3, resolve=slow), site.url()),
            (site.fetcher(timeout_s=0.3, ports=(port,)), f"https://{HOST}:{port}/"),
            (site.fetcher(timeout_s=0.3), site.url()),
            (site.fetcher(timeout_s=0.3, concurrent=0), site.url()),
        ]
        errors = await asyncio.gather(*(refused(fetcher, url) for fetcher, url in late))
        freed.set()
    silent.close()
    assert [error.code for error in errors] == ["picture_fetch_timeout"] * 4


async def test_one_slow_host_does_not_hold_up_another(certificate: Path):
    """With as many fetches and lookups under way as a host may have, others are served at once."""
    freed = threading.Event()
    waiting = asyncio.Semaphore(0)

    def resolve(host: str) -> list[str]:
        if host == "slow-lookup.test":
            freed.wait(30)
        return ["127.0.0.1"]

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/slow":
            waiting.release()
            await asyncio.sleep(60)
        return web.Response(body=PICTURE)

    async with web_site(certificate, answer) as site:
        fetcher = site.fetcher(
            [HOST, f"*.{HOST}", "slow-lookup.test"], timeout_s=60, resolve=resolve, concurrent=5, per_entry=2
        )
        urls = [site.url("/slow", f"one.{HOST}"), site.url(host="slow-lookup.test")]
        slow = [asyncio.create_task(fetcher.fetch(url, PARAM)) for url in urls * 4]
        await waiting.acquire()
        await waiting.acquire()
        assert await asyncio.wait_for(fetcher.fetch(site.url(), PARAM), 30) == PICTURE
        assert not any(task.done() for task in slow)
        assert waiting.locked()  # two were asked, and no third
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        freed.set()
        assert await fetcher.fetch(site.url(host=f"two.{HOST}"), PARAM) == PICTURE  # their places are free again


async def test_lookups_that_were_given_up_do_not_pile_up(certificate: Path):
    """Each goes on in its thread until the system gives up; a host has so many threads, and no more."""
    freed = threading.Event()
    started: list[str] = []

    def slow(host: str) -> list[str]:
        started.append(host)
        freed.wait(30)
        return ["127.0.0.1"]

    async with web_site(certificate, picture) as site:
        fetcher = site.fetcher(resolve=slow, timeout_s=0.1, per_entry=2)
        for _ in range(5):
            assert (await refused(fetcher, site.url())).code == "picture_fetch_timeout"
        freed.set()
    assert len(started) <= 2


@pytest.mark.parametrize("length", [3, LIMIT + 1])
async def test_no_connection_outlives_its_fetch(certificate: Path, length: int):
    """A server that neither hangs up nor takes part in TLS's goodbye is hung up on, answered or refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        tls = server_context(certificate).wrap_socket(connection, server_side=True)
        tls.recv(65536)
        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nabc" % length)
        with socket.socket(fileno=tls.detach()) as bare:
            bare.settimeout(20)  # the client's own patience is 30 s
            while bare.recv(65536):
                pass
            ended.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    site = Site(listener.getsockname()[1], certificate)
    fetcher = site.fetcher()
    if length == 3:
        assert await fetcher.fetch(site.url(), PARAM) == b"abc"
    else:
        assert (await refused(fetcher, site.url())).code == "picture_too_large"
    await asyncio.to_thread(thread.join, 30)
    assert ended.is_set()
    listener.close()
    await site.close()


async def test_errors_and_logs_keep_secrets(certificate: Path, caplog: pytest.LogCaptureFixture):
    """The query of a signed URL and a password are neither in a message, nor behind it, nor logged."""
    caplog.set_level("DEBUG")
    secret = "hunter2"
    async with rough_site(certificate, b"HTTP/1.1 200 hunter2\r\nhunter2\r\n\r\n") as site:
        urls = [
            site.url(f"/hunter2?sig={secret}"),
            site.url(f"/?sig={secret} "),
            f"https://me:{secret}@{HOST}:{site.port}/",
            f"https://{HOST}:{secret}/",
            f"{secret}:?sig={secret}",
            f"http://{HOST}/{secret}",
            site.url(f"/?{secret}", "evil.test"),
        ]
        for url in urls:
            error = await refused(site.fetcher(), url)
            assert secret not in str(error)
            assert error.__cause__ is None and error.__context__ is None
    assert secret not in caplog.text


SCRIPT = """
import asyncio, ssl, sys
from serving.fetch import PictureFetcher

async def main(port, certificate):
    fetcher = PictureFetcher(
        ["pictures.test"], 10_000, 30, resolve=lambda host: ["127.0.0.1"], public=lambda address: True,
        ssl_context=ssl.create_default_context(cafile=certificate), ports=(port,),
    )
    sys.stdout.buffer.write(await fetcher.fetch(f"https://pictures.test:{port}/", "url"))
    await fetcher.close()

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


async def test_the_environment_has_no_say(certificate: Path, tmp_path: Path):
    """Neither its proxies nor its passwords (.netrc) are used."""
    headers: list[str] = []
    at_proxy: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        headers.extend(request.headers)
        return web.Response(body=PICTURE)

    def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at_proxy.append("asked")
        writer.close()

    (tmp_path / "netrc").write_text("default login me password hunter2\n")
    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    proxy_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    cleared = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment = cleared | dict.fromkeys(names, proxy_url) | {"NETRC": str(tmp_path / "netrc")}
    async with web_site(certificate, answer) as site:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", SCRIPT, str(site.port), str(certificate)),
            cwd=Path(__file__).parents[1],
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    server.close()
    assert out == PICTURE, err.decode()
    assert at_proxy == []
    assert "Authorization" not in headers
