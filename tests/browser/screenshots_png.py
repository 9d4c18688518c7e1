"""Small PNG files, without a picture library: 256 colours, which is plenty for a page of text.

Reads what browsers write (8 bits a channel, RGB or RGBA, not interlaced) and writes a palette.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}  # by PNG colour type
PALETTE_MAX = 256

Colour = tuple[int, int, int]


def small(png: bytes) -> bytes:
    """The same picture in at most 256 colours; the rare ones become the nearest of the frequent ones."""
    width, height, rows = _pixels(png)
    counts = Counter(colour for row in rows for colour in row)
    palette = [colour for colour, _ in counts.most_common(PALETTE_MAX)]
    index = {colour: _nearest(colour, palette) for colour in counts}
    lines = b"".join(b"\0" + bytes(index[colour] for colour in row) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"PLTE", b"".join(bytes(colour) for colour in palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def _pixels(png: bytes) -> tuple[int, int, list[list[Colour]]]:
    """Width, height and the colours, row by row. Raises `ValueError` for a picture of another kind."""
    found = list(_chunks(png))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", dict(found)[b"IHDR"])
    if depth != 8 or kind not in CHANNELS or interlaced:
        raise ValueError(
            f"a PNG of depth {depth}, colour type {kind}, interlaced {interlaced}; want RGB or RGBA"
        )
    size = CHANNELS[kind]
    data = zlib.decompress(b"".join(body for name, body in found if name == b"IDAT"))
    rows: list[list[Colour]] = []
    before = bytearray(width * size)
    for start in range(0, len(data), width * size + 1):
        line = bytearray(data[start + 1 : start + 1 + width * size])
        _unfilter(data[start], line, before, size)
        rows.append([(line[at], line[at + 1], line[at + 2]) for at in range(0, len(line), size)])
        before = line
    return width, height, rows


def _unfilter(how: int, line: bytearray, above: bytearray, size: int) -> None:
    """Undoes what PNG section 9 calls filter types 1 to 4, in place."""
    for at in range(len(line)):
        left = line[at - size] if at >= size else 0
        corner = above[at - size] if at >= size else 0
        if how == 1:
            line[at] = (line[at] + left) & 255
        elif how == 2:
            line[at] = (line[at] + above[at]) & 255
        elif how == 3:
            line[at] = (line[at] + (left + above[at]) // 2) & 255
        elif how == 4:
            line[at] = (line[at] + _paeth(left, above[at], corner)) & 255


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda each: abs(guess - each))


def _nearest(colour: Colour, palette: list[Colour]) -> int:
    def distance(place: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(palette[place], colour, strict=True))

    return min(range(len(palette)), key=distance)
