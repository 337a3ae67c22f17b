"""A small S3: lists a folder's files and gives them out, as slowly as wanted, and refuses those that it is told to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "pictures"


@dataclass
class S3:
    """A bucket whose objects are a folder's files."""

    folder: Path
    port: int = 0
    delay_s: float = 0.0  # before an object is given
    refused: set[str] = field(default_factory=set)  # keys that this user may not read; "": all, and no listing
    asked: list[str] = field(default_factory=list)  # "list", and keys as often as they were given
    at_once: list[int] = field(default_factory=lambda: [0, 0])  # objects that are being given, and most of them

    def uri(self, prefix: str = "") -> str:
        return f"s3://{BUCKET}/{prefix}?scheme=http&endpoint_override=127.0.0.1:{self.port}"


@contextmanager
def s3_of(folder: Path) -> Iterator[S3]:
    """Serve a folder until the block ends."""
    s3 = S3(folder)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._object(self._key(), body=False)

        def do_GET(self) -> None:
            key = self._key()
            if key:
                self._object(key, body=True)
            else:
                self._list({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

        def _key(self) -> str:
            return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").strip("/")

        def _object(self, key: str, body: bool) -> None:
            file = s3.folder / key
            if {key, ""} & s3.refused:
                self._send(403, b"")
            elif not key or not file.is_file():
                self._send(200 if not key else 404, b"")
            else:
                if body:
                    with lock:
                        s3.asked.append(key)
                        s3.at_once[0] += 1
                        s3.at_once[1] = max(s3.at_once)
                    time.sleep(s3.delay_s)
                    with lock:
                        s3.at_once[0] -= 1
                self._send(200, file.read_bytes(), body)

        def _list(self, query: dict[str, str]) -> None:
            if "" in s3.refused:
                self._send(403, b"")
                return
            if query.get("max-keys", "1000") != "1":
                s3.asked.append("list")
            keys = sorted(str(file.relative_to(s3.folder)) for file in s3.folder.rglob("*") if file.is_file())
            found = [key for key in keys if key.startswith(query.get("prefix", ""))]
            contents = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<Size>{(s3.folder / key).stat().st_size}</Size></Contents>"
                for key in found
            )
            self._send(
                200, f"<ListBucketResult><KeyCount>{len(found)}</KeyCount>{contents}</ListBucketResult>".encode()
            )

        def _send(self, status: int, content: bytes, body: bool = True) -> None:
            whole = len(content)
            asked = self.headers.get("Range", "")
            if asked.startswith("bytes=") and status == 200 and self.command == "GET":
                first, _, last = asked.removeprefix("bytes=").partition("-")
                end = min(int(last or whole - 1), whole - 1)
                content = content[int(first) : end + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{end}/{whole}")
            else:
                self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if body and self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Nothing: the tests look at `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s3.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
