"""The bytes of a vocabulary's entries, by the decoder of its ``tokenizer.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tokenizers import Tokenizer as Backend

from herdlm.base.errors import InputError


def byte_reader(backend: Backend) -> tuple[Callable[[str], bytes], bool]:
    """How a token of the model is read as bytes, and whether a text loses its first space when it is decoded.

    Raises:
        InputError: the decoder is neither that of byte-level BPE nor that of SentencePiece.
    """
    state = json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else {"type": "none"}
    parts = state.get("decoders", [state])
    kinds = {part["type"]: part for part in parts}
    if "ByteLevel" in kinds:
        return _byte_level, False
    if not kinds.keys() & {"Metaspace", "ByteFallback", "Replace"}:
        raise InputError(
            f"tokens of the form {' + '.join(sorted(kinds))} cannot be read as bytes",
            "Use a tokenizer.json of byte-level BPE or of SentencePiece",
        )
    strip = kinds.get("Strip", {})
    strips = "Metaspace" in kinds and kinds["Metaspace"].get("prepend_scheme", "always") != "never"
    return _sentence_piece, strips or (strip.get("content") == " " and bool(strip.get("start")))


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in token)
    except KeyError:  # a token outside the byte alphabet is stored as text
        return token.encode()


def _sentence_piece(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _byte_characters() -> dict[str, int]:
    """The byte of each printable character that represents one in byte-level BPE files (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    for shift, byte in enumerate(b for b in range(256) if b not in set(printable)):
        table[chr(256 + shift)] = byte
    return table


_BYTE_OF_CHARACTER = _byte_characters()
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
