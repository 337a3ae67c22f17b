"""Pictures in a store that pyarrow reads: s3://, gs://, hdfs://, or file:// as others.

What lies under the prefix is listed once, so that whether a picture is there costs no round trip of its own. Pictures
are read by whoever shows them to the model.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
from pyarrow import fs

from complexity.errors import InvalidInput, M3Error

SHOWN_CHARS = 300  # of what a store complains of
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BROKEN = (OSError, pa.ArrowException)


@dataclass(frozen=True)
class Store:
    """A prefix of an object store, or a folder of another file system, by its URI; keys in it stay out of messages."""

    uri: str  # as pyarrow.fs.FileSystem.from_uri takes it: s3://bucket/prefix?region=eu-west-1

    def __str__(self) -> str:
        scheme, _, rest = self.uri.partition("?")[0].partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].rstrip('/')}"

    def holds(self, name: str) -> bool:
        """Whether there is a picture of this name."""
        folder, file = posixpath.split(name)
        return file in _listed(self).get(folder, ())

    def files(self, folder: str) -> frozenset[str]:
        """Names of the files that lie in a folder of it, without those of its folders."""
        return _listed(self).get(folder, frozenset())

    def check(self) -> None:
        """List it.

        Raises:
            InvalidInput: there is nothing of that name, or no such kind of store.
            M3Error: it doesn't answer, or refuses to.
        """
        _listed(self)

    def read(self, name: str) -> bytes:
        """What a picture holds.

        Raises:
            InvalidInput: it is gone, or can't be read although the store answers.
            M3Error: the store itself doesn't answer any more, or refuses to.
        """
        system, base = _opened(self)
        try:
            with system.open_input_stream(f"{base}/{name}") as stream:
                return bytes(stream.read())
        except _BROKEN as error:
            if not isinstance(error, FileNotFoundError):
                _answers(self)
            raise InvalidInput(f"{self}/{name} can't be read: {_told(self, error)}") from None


Folder: TypeAlias = Path | Store
"""Where pictures lie."""


def folder_at(told: str) -> Folder:
    """A path, or a store where it is a URI."""
    return Store(told) if is_uri(told) else Path(told)


def is_uri(told: str) -> bool:
    """Whether a name begins with a scheme, such as s3://."""
    return _SCHEME.match(told) is not None


@lru_cache
def _opened(store: Store) -> tuple[fs.FileSystem, str]:
    """The file system, and the prefix in it; once in a process, since it holds connections."""
    if store.uri.lower().startswith(("http://", "https://")):
        raise InvalidInput(f"{store} is on the web; pictures are read from s3://, gs://, hdfs:// or disk", "images")
    try:
        system, base = fs.FileSystem.from_uri(store.uri)
    except (*_BROKEN, ImportError) as error:
        raise InvalidInput(f"{store} can't be opened: {_told(store, error)}", "images") from None
    return system, base.rstrip("/")


@lru_cache
def _listed(store: Store) -> Mapping[str, frozenset[str]]:
    """Folder -> the files in it; some 100 bytes a file."""
    system, base = _opened(store)
    if _answers(store).type == fs.FileType.NotFound:
        raise InvalidInput(f"there is no folder {store}", "images")
    try:
        found = system.get_file_info(fs.FileSelector(base, recursive=True))
    except _BROKEN as error:
        raise M3Error(f"{store} can't be listed: {_told(store, error)}") from None
    names: defaultdict[str, set[str]] = defaultdict(set)
    for info in found:
        if info.type == fs.FileType.File:
            folder, file = posixpath.split(info.path[len(base) + 1 :])
            names[folder].add(file)
    return {folder: frozenset(files) for folder, files in names.items()}


def _answers(store: Store) -> fs.FileInfo:
    """Ask it for what it must have, and so whether it answers at all.

    Raises:
        M3Error: it doesn't answer, or refuses to.
    """
    system, base = _opened(store)
    try:
        return system.get_file_info(base)
    except _BROKEN as error:
        raise M3Error(f"{store} can't be reached: {_told(store, error)}") from None


def _told(store: Store, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "No such file"
    return " ".join(str(error).replace(store.uri, str(store)).split())[:SHOWN_CHARS]
