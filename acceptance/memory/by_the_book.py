"""A second reader of sealed headers, written from docs/formats.md alone ("Keys" and "Header") and with another
cryptographic library: given a zone key, it finds the data key of every file, value and log segment on disk, as an
auditor could."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"\x93SAKER\r\n"
HEADER_BYTES = 192


@dataclasses.dataclass(frozen=True)
class OpenedHeader:
    place: Path
    file_id: bytes
    kind: int
    shape: int
    keys: dict[str, bytes]
    """The data key and everything that is derived on the way to it and from it, by name."""


def hkdf(secret: bytes, salt: bytes, info: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA-512 (RFC 5869) to 32 bytes, and the pseudorandom key in the middle, from which they follow."""
    middle = hmac.digest(salt, secret, "sha512")
    return hmac.digest(middle, info + b"\x01", "sha512")[:32], middle


def open_header(header: bytes, zone_key: bytes, place: Path) -> OpenedHeader | None:
    """The header's keys; `None` if this is not the zone key that wraps it. Everything that the page tells a reader to check
    is checked, and a header that unwraps but differs in the rest is an error."""
    version, suite, kind, shape = struct.unpack_from("<HHHB", header, 8)
    if (version, suite) != (1, 1):
        return None
    file_id, zone, zone_key_version = header[16:32], header[112:128], header[128:132]
    wrap_key, wrap_middle = hkdf(zone_key, file_id, b"saker/v1/wrap" + zone + zone_key_version)
    try:
        data_key = AESGCM(wrap_key).decrypt(header[132:144], header[144:192], header[:132])
    except InvalidTag:
        return None
    assert len(data_key) == 32
    frames, middle = hkdf(data_key, file_id, b"saker/v1/frames")
    header_key, _ = hkdf(data_key, file_id, b"saker/v1/header")
    commitment, _ = hkdf(data_key, file_id, b"saker/v1/commitment")
    assert commitment == header[48:80], f"the commitment in {place} is not to its data key"
    assert hmac.digest(header_key, header[:80], hashlib.sha256) == header[80:112], f"the header tag in {place} is wrong"
    keys = {
        "data key": data_key,
        "wrap key": wrap_key,
        "frames key": frames,
        "header key": header_key,
        "pseudorandom key of a data key": middle,
        "pseudorandom key of a zone key": wrap_middle,
    }
    return OpenedHeader(place, file_id, kind, shape, keys)


def headers_in(path: Path) -> Iterator[bytes]:
    """Whatever looks like a header anywhere in a file: files and log segments have one, the metadata file one per value."""
    data = path.read_bytes()
    at = data.find(MAGIC)
    while at >= 0:
        if at + HEADER_BYTES <= len(data):
            yield data[at : at + HEADER_BYTES]
        at = data.find(MAGIC, at + 1)


def open_all(root: Path, zone_keys: Iterable[bytes]) -> list[OpenedHeader]:
    """Every header under `root` that one of the zone keys opens, each once."""
    zone_keys = list(zone_keys)
    opened: dict[bytes, OpenedHeader] = {}
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        for header in headers_in(path):
            for zone_key in zone_keys:
                found = open_header(header, zone_key, path)
                if found:
                    opened[found.keys["data key"]] = found
    return list(opened.values())
