"""Pictures of the documentation are made small without a picture library: what that keeps and loses."""

import struct
import zlib

import pytest

from tests.browser.screenshots_png import SIGNATURE, _chunk, _paeth, small


def picture(rows: list[list[tuple[int, ...]]], filters: list[int], kind: int = 2, depth: int = 8) -> bytes:
    """A PNG of those colours, each row filtered in its own way."""
    size = len(rows[0][0])
    data, above = b"", bytes(len(rows[0]) * size)
    for row, how in zip(rows, filters, strict=True):
        line = bytes(part for colour in row for part in colour)
        data += bytes([how]) + bytes(
            (byte - predicted(how, line, above, at, size)) & 255 for at, byte in enumerate(line)
        )
        above = line
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(*part) for part in parts)


def predicted(how: int, line: bytes, above: bytes, at: int, size: int) -> int:
    left = line[at - size] if at >= size else 0
    corner = above[at - size] if at >= size else 0
    return (0, left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner))[how]


def colours(png: bytes) -> list[list[tuple[int, ...]]]:
    """What a palette picture shows."""
    palette, data = b"", b""
    width = struct.unpack_from(">I", png, 16)[0]
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(kind + body)
        palette, data = (body if kind == b"PLTE" else palette), data + (body if kind == b"IDAT" else b"")
        at += 12 + length
    plain = zlib.decompress(data)
    return [
        [tuple(palette[3 * place : 3 * place + 3]) for place in plain[start + 1 : start + 1 + width]]
        for start in range(0, len(plain), width + 1)
    ]


ROWS = [[((x * 40) % 256, (y * 50) % 256, (x * y * 7) % 256) for x in range(7)] for y in range(5)]


@pytest.mark.parametrize("alpha", [(), (255,)])
def test_a_picture_of_few_colours_stays_as_it_is(alpha: tuple[int, ...]) -> None:
    rows: list[list[tuple[int, ...]]] = [[(*colour, *alpha) for colour in row] for row in ROWS]
    png = picture(rows, [0, 1, 2, 3, 4], kind=6 if alpha else 2)
    assert colours(small(png)) == ROWS


def test_rare_colours_become_their_neighbours() -> None:
    rows: list[list[tuple[int, ...]]] = [[(x, y, 0) for x in range(40)] for y in range(40)]
    shown = colours(small(picture(rows, [0] * 40)))
    assert len({colour for row in shown for colour in row}) == 256
    assert shown[0] == rows[0]
    off = [abs(a - b) for old, new in zip(rows, shown, strict=True) for c, d in zip(old, new, strict=True) for a, b in zip(c, d, strict=True)]  # fmt: skip  # noqa: E501
    assert max(off) <= 40


def test_another_kind_of_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="colour type 3"):
        small(picture([[(0,)]], [0], kind=3))
