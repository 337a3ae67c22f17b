"""A checkpoint's weights, read one tensor at a time straight to where they are needed."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from complexity.errors import CheckpointError

_FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.bin"]


def find_folder(name: str | Path, beside: Path | None = None) -> Path:
    """A checkpoint's folder: a path, perhaps relative to the folder `beside`, or else a model of the hub.

    Raises:
        CheckpointError: it is neither.
    """
    for folder in ([beside / name] if beside else []) + [Path(name)]:
        if folder.is_dir():
            return folder.resolve()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise CheckpointError(f"there is no folder {name}")
    try:
        return Path(snapshot_download(str(name), allow_patterns=_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name} is no folder, and as a model of the hub it can't be had: {reason}") from None


class Shards:
    """The tensors of a folder's .safetensors files or, where there are none, of its .bin files."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = _files(folder, "model", "safetensors") or _files(folder, "pytorch_model", "bin")
        if not files:
            raise CheckpointError(
                f"{folder} holds no weights: no model.safetensors or pytorch_model.bin or shards of it"
            )
        self._file_of: dict[str, Path] = {}
        for file in files:
            with _opened(file, "cpu") as (names, _):
                self._file_of.update(dict.fromkeys(names, file))

    @property
    def names(self) -> Sequence[str]:
        return list(self._file_of)

    def read(self, names: Sequence[str], device: str) -> Iterator[tuple[str, Tensor]]:
        """Some of the tensors, one after the other."""
        for file in sorted({self._file_of[name] for name in names}):
            with _opened(file, device) as (_, get):
                yield from ((name, get(name)) for name in names if self._file_of[name] == file)


def _files(folder: Path, stem: str, suffix: str) -> list[Path]:
    index = folder / f"{stem}.{suffix}.index.json"
    if not index.is_file():
        return sorted(folder.glob(f"{stem}*.{suffix}"))
    files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{folder} is incomplete: {index.name} names {', '.join(missing)}, which isn't there")
    return files


@contextmanager
def _opened(file: Path, device: str) -> Iterator[tuple[Sequence[str], Callable[[str], Tensor]]]:
    if file.suffix == ".bin":
        tensors = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        yield list(tensors), tensors.__getitem__
        return
    try:
        with safe_open(file, "pt", device=device) as opened:
            yield list(opened.keys()), opened.get_tensor
    except SafetensorError as error:
        raise CheckpointError(f"{file} can't be read: {error}") from error


@contextmanager
def unfilled(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Modules built inside have their weights' room on `device` and nothing in it yet, for `fill`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Source:
    """Where weights come from, and what they are called where they go; None is for those that aren't wanted."""

    shards: Shards
    rename: Callable[[str], str | None]


def fill(module: nn.Module, sources: Sequence[Source], device: str, spare: str = "$^") -> None:
    """Copy weights into a module, tensor by tensor.

    Args:
        device: that each tensor is read to on its way.
        spare: regular expression of names, in the module's terms, that may be left over.

    Raises:
        CheckpointError: weights are missing, left over or of another shape, each named.
    """
    wanted = dict(module.state_dict(keep_vars=True))
    found = [
        (source.shards, {name: new for name in source.shards.names if (new := source.rename(name)) is not None})
        for source in sources
    ]
    there = {new for _, names in found for new in names.values()}
    filled = {id(target) for name, target in wanted.items() if name in there}  # so that tied weights aren't missing
    missing = [name for name, target in wanted.items() if id(target) not in filled]
    left = [name for _, names in found for name, new in names.items() if new not in wanted and not re.match(spare, new)]
    if missing or left:
        folder = sources[0].shards.folder
        raise CheckpointError(f"{folder}: missing weights {sorted(missing)}, unexpected {sorted(left)}")
    with torch.no_grad():
        for shards, names in found:
            for name, tensor in shards.read([name for name, new in names.items() if new in wanted], device):
                target = wanted[names[name]]
                if tensor.shape != target.shape:
                    expected = f"{tuple(tensor.shape)}; the configuration makes it {tuple(target.shape)}"
                    raise CheckpointError(f"{shards.folder}: {name} has the shape {expected}")
                target.copy_(tensor)
