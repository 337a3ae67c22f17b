"""Where feedback is kept: a folder of append-only journals, one file a process, whose rows outlive a crash."""

import asyncio
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from complexity.feedback import JOURNALS, FeedbackRow, from_line, to_line
from serving.failures import FeedbackNotStored, Refused

LOCK_FILE = ".lock"  # held while a key is looked up and its row written, by one process of the machine at a time
MOST_KEYS = 100_000  # idempotency keys remembered; the oldest go first
MOST_BYTES = 64 * 2**20  # of older journals read for their keys, the newest of it

log = logging.getLogger(__name__)
T = TypeVar("T")
Given = Literal["stored", "duplicate"]


class IdempotencyConflict(Refused):
    """An idempotency key came again with other content (HTTP 409)."""

    def __init__(self) -> None:
        message = "this Idempotency-Key came before with other feedback; take a new key for new feedback"
        super().__init__(409, "idempotency_conflict", message, "Idempotency-Key")


@dataclass
class _File:
    """The journal that this process writes."""

    path: Path
    handle: int
    end: int = 0  # bytes of whole, durable lines

    def in_place(self) -> bool:
        """False when somebody has moved or deleted it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.handle))
        except FileNotFoundError:
            return False


class Journal:
    """Appends rows to a journal of this process's own; one thread does it, so calls may overlap.

    A row is acknowledged when it is on the disk. A journal in which a write failed is cut back to its last whole line
    and never written again, since a file whose fsync failed can't be trusted; the next row begins a new one, so storing
    goes on by itself when there is room again. Journals may be moved away or deleted at any time.

    Args:
        folder: is made when it isn't there.
        timeout_s: the most that a caller waits; a disk that hangs holds up feedback alone.
        sync: makes an open file's content durable.

    Raises:
        FeedbackNotStored: the folder can't be made, or nothing may be written to it.
    """

    def __init__(self, folder: Path, timeout_s: float = 5.0, sync: Callable[[int], None] = os.fsync):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FeedbackNotStored(f"{folder}: can't be made to hold feedback ({error.strerror})") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise FeedbackNotStored(f"{folder}: feedback is to be kept there, and it can't be written to")
        self._folder = folder
        self._timeout_s = timeout_s
        self._sync = sync
        self._thread = ThreadPoolExecutor(1, "feedback-journal")  # not asyncio's: a hung disk would take all of it
        self._file: _File | None = None
        self._own: set[str] = set()  # names of journals written here
        self._read: dict[str, int] | None = None  # bytes already read of each other journal; None: never looked
        self._keys: OrderedDict[str, str] = OrderedDict()  # idempotency key -> digest of what came with it
        self._told: set[int | None] = set()  # causes already logged

    async def append(self, row: FeedbackRow) -> Given:
        """Store a row; one with an idempotency key is stored once, whichever process of this machine gets it.

        Raises:
            FeedbackNotStored: it isn't durable; no part of it is left, or, if it was late, it may be there whole.
            IdempotencyConflict: the key was stored with another verdict.
        """
        return await self._apart(lambda: self._append(row))

    async def holds(self, key: str, digest: str) -> bool:
        """Whether a verdict, by its `digest_of`, is stored under an idempotency key; raises as `append` does."""

        def look() -> bool:
            with self._alone():
                return self._known(key, digest)

        return await self._apart(look)

    async def close(self) -> None:
        """End the appends under way and close the journal."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            os.close(self._file.handle)
            self._file = None

    async def _apart(self, work: Callable[[], T]) -> T:
        """Run in the journal's thread."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise FeedbackNotStored(f"storing wasn't confirmed within {self._timeout_s:g} s; try again") from None
        except OSError as error:
            if error.errno not in self._told:
                self._told.add(error.errno)
                log.error("%s: feedback can't be stored (%s)", self._folder, error)
            raise FeedbackNotStored("the feedback couldn't be stored; try again later") from None

    def _append(self, row: FeedbackRow) -> Given:
        line, key = to_line(row), row.idempotency_key
        if key is None:
            self._write(line)
            return "stored"
        with self._alone():
            digest = digest_of(row.answered.decision_id, row.score, row.references)
            if self._known(key, digest):
                return "duplicate"
            self._write(line)
            self._remember(key, digest)
        return "stored"

    def _write(self, line: bytes) -> None:
        """One write and one sync, or no trace."""
        file = self._file
        if file is not None and not file.in_place():
            os.close(file.handle)
            file = self._file = None
        if file is None:
            file = self._file = self._begin()
        try:
            if os.write(file.handle, line) < len(line):
                raise OSError(errno.ENOSPC, "only a part of the line could be written")
            self._sync(file.handle)
        except OSError:
            self._file = None
            _take_back(file)
            raise
        file.end += len(line)
        if self._told:
            self._told.clear()
            log.warning("%s: feedback is stored again", self._folder)

    def _begin(self) -> _File:
        """A new journal, whose name is durable too."""
        name = f"feedback-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.jsonl"
        handle = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        file = _File(self._folder / name, handle)
        self._own.add(name)
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._sync(folder)
            finally:
                os.close(folder)
        except OSError:
            _take_back(file)
            raise
        return file

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of this machine is here meanwhile; the lock of one that dies is free."""
        handle = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _known(self, key: str, digest: str) -> bool:
        self._catch_up()
        before = self._keys.get(key)
        if before not in (None, digest):
            raise IdempotencyConflict
        return before is not None

    def _remember(self, key: str, digest: str) -> None:
        self._keys[key] = digest
        while len(self._keys) > MOST_KEYS:
            self._keys.popitem(last=False)

    def _catch_up(self) -> None:
        """Learn the keys that other processes, or this service before it was restarted, have stored."""
        others = [path for path in self._folder.glob(JOURNALS) if path.name not in self._own]
        sizes = {path: found for path in others if (found := _stat(path)) is not None}
        newest_last = sorted(sizes, key=lambda path: sizes[path].st_mtime_ns)
        if self._read is None:
            self._read, left = {}, MOST_BYTES
            for path in reversed(newest_last):
                self._read[path.name] = max(0, sizes[path].st_size - left)
                left -= min(left, sizes[path].st_size)
        for path in newest_last:
            start = self._read.get(path.name, 0)
            if sizes[path].st_size > start:
                with path.open("rb") as journal:
                    journal.seek(start)
                    whole = journal.read().rpartition(b"\n")[0]
                if whole:
                    self._read[path.name] = start + len(whole) + 1
                    self._learn(whole.split(b"\n"))

    def _learn(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                row = from_line(line)
            except ValueError:  # of another version, or its beginning wasn't read; train-router names broken ones
                continue
            if row.idempotency_key is not None:
                self._remember(row.idempotency_key, digest_of(row.answered.decision_id, row.score, row.references))


def digest_of(decision_id: str, score: float, references: tuple[str, ...]) -> str:
    """Two verdicts are the same when their digests are."""
    return hashlib.sha256(json.dumps([decision_id, float(score), list(references)]).encode()).hexdigest()


def _take_back(file: _File) -> None:
    """Cut a journal back to its whole lines, and close it; an empty one goes."""
    try:
        os.ftruncate(file.handle, file.end)
        if file.end == 0:
            file.path.unlink(missing_ok=True)
    except OSError as error:  # its last line stays torn, which readers skip
        log.warning("%s: can't be cut back (%s)", file.path, error)
    finally:
        os.close(file.handle)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # moved away since it was listed
        return None
