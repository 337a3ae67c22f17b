"""The tokens of a vocabulary one by one: what each stands for, to the byte."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}  # in byte-level BPE a letter stands for a byte
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's
_SPACE = "\u2581"  # SentencePiece's


class Vocabulary:
    """By token id: its text, with U+FFFD for characters that aren't complete, and its bytes.

    Special tokens are told by their names and have no bytes. Byte-level BPE and SentencePiece's pieces are understood.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer: Any = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = "ByteLevel" in repr(getattr(backend, "decoder", None))  # by itself or among others

    def __getitem__(self, token: int) -> tuple[str, bytes]:
        spelt = self._tokenizer.convert_ids_to_tokens(token)
        if spelt is None or token in self._special:  # a language model may know more ids than its tokenizer
            return spelt or "", b""
        raw = self._raw(spelt)
        return raw.decode(errors="replace"), raw

    def _raw(self, spelt: str) -> bytes:
        if self._byte_level and all(letter in _BYTES for letter in spelt):
            return bytes(_BYTES[letter] for letter in spelt)
        byte = _BYTE.fullmatch(spelt)
        return bytes([int(byte[1], 16)]) if byte else spelt.replace(_SPACE, " ").encode()
