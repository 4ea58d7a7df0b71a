"""The demo's files, drawn by code: two pictures and a quote, so that a newcomer sees previews at once."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

Colour = tuple[int, int, int]
#: (left, top, right, bottom, corner radius, colour), painted in this order.
Box = tuple[int, int, int, int, int, Colour]

_WIDTH: Final = 480
_HEIGHT: Final = 320


def _painted(wall: Colour, floor: Colour, boxes: tuple[Box, ...]) -> bytes:
    """A PNG: a wall that fades, a floor, and boxes with round corners."""
    rows = []
    for y in range(_HEIGHT):
        shade = y / _HEIGHT
        base = floor if y > 235 else (*(round(c * (1.04 - 0.14 * shade)) for c in wall),)
        row = bytearray(bytes(min(255, c) for c in base) * _WIDTH)
        for left, top, right, bottom, radius, colour in boxes:
            if not top <= y < bottom:
                continue
            edge = min(y - top, bottom - 1 - y)
            cut = 0
            if edge < radius:
                cut = radius - round((radius**2 - (radius - edge) ** 2) ** 0.5)
            lit = bytes(min(255, round(c * (1.1 - 0.25 * (y - top) / (bottom - top)))) for c in colour)
            row[3 * (left + cut) : 3 * (right - cut)] = lit * (right - left - 2 * cut)
        rows.append(b"\x00" + row)

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = _WIDTH.to_bytes(4, "big") + _HEIGHT.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows), 9))
        + chunk(b"IEND", b"")
    )


def sofa() -> bytes:
    """An olive corner sofa in front of a light wall."""
    olive, cushion, wood = (124, 132, 84), (150, 158, 104), (92, 70, 50)
    return _painted(
        (236, 230, 218),
        (196, 178, 150),
        (
            (150, 34, 330, 104, 4, (222, 205, 170)),
            (160, 44, 320, 94, 2, (120, 158, 166)),
            (60, 130, 420, 214, 22, olive),
            (44, 160, 104, 262, 20, olive),
            (376, 160, 436, 262, 20, olive),
            (100, 196, 380, 258, 14, cushion),
            (238, 198, 242, 256, 0, olive),
            (112, 142, 178, 200, 12, (201, 152, 92)),
            (70, 258, 84, 284, 2, wood),
            (396, 258, 410, 284, 2, wood),
        ),
    )


def scratched_table() -> bytes:
    """A walnut table with the scratch that the customer complains of."""
    walnut, dark = (134, 92, 60), (98, 66, 44)
    scratch = tuple((236 + 3 * n, 158 + n, 244 + 3 * n, 160 + n, 0, (232, 214, 190)) for n in range(22))
    return _painted(
        (226, 224, 222),
        (170, 160, 150),
        (
            (70, 140, 410, 196, 8, walnut),
            (70, 196, 410, 206, 3, dark),
            (96, 204, 114, 292, 3, dark),
            (366, 204, 384, 292, 3, dark),
            *scratch,
        ),
    )


def quote() -> bytes:
    """A PDF of one page."""
    lines = (
        "Nile Home - Quote NH-Q-1042",
        "Delta Contracting, New Alamein, 24 apartments",
        "24 x Nile corner sofa        1,020,000 EGP",
        "24 x Siwa dining set           900,000 EGP",
        "Total with delivery          1,920,000 EGP",
    )
    text = "BT /F1 14 Tf 60 760 Td 26 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = (
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(text)}>>\nstream\n{text}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Courier>>",
    )
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for n, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{n} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer\n<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(out)}\n%%EOF\n"
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()
    return bytes(out)


#: By the name that hub/db/demo.py uses: file name, kind of message, type, and what makes it.
FILES: Final[dict[str, tuple[str, str, str, Callable[[], bytes]]]] = {
    "sofa": ("nile-corner-sofa.png", "image", "image/png", sofa),
    "table": ("IMG-20261121-WA0003.png", "image", "image/png", scratched_table),
    "quote": ("Quote NH-Q-1042.pdf", "document", "application/pdf", quote),
}
