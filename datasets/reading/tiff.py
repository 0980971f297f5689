"""The pages of a TIFF file, each as a file of its own that OpenCV reads (TIFF 6.0, section 2, and BigTIFF)."""

import struct
from typing import NamedTuple

SUBFILE, BITS, SAMPLES, SAMPLE_FORMAT = 254, 258, 277, 339  # tags
SHORT = 3  # a type of value
PARTS = ((273, 279), (324, 325))  # offsets and lengths, of strips and of tiles
CODES = {3: "H", 4: "I", 16: "Q"}  # types of a tag's value
ASIDE = 0b101  # bits of SUBFILE: a smaller copy, a transparency mask
SIGNED = 2  # value of SAMPLE_FORMAT
MOST_PAGES = 100_000


class Form(NamedTuple):
    """How a TIFF file writes numbers: struct codes of byte order, of the number of tags, of an offset."""

    order: str
    number: str
    offset: str
    first: int  # where the offset of the first directory lies
    entry: int  # bytes of a tag


class Page(NamedTuple):
    """A TIFF file of one page; `unsigned` where its 32-bit levels are declared signed and are not."""

    content: bytes
    unsigned: bool = False


FORMS = {
    b"II*\0": Form("<", "H", "I", 4, 12),
    b"MM\0*": Form(">", "H", "I", 4, 12),
    b"II+\0": Form("<", "Q", "Q", 8, 20),
    b"MM\0+": Form(">", "Q", "Q", 8, 20),
}


def is_tiff(content: bytes) -> bool:
    """Whether a file begins as a TIFF file does."""
    return content[:4] in FORMS


def pages(content: bytes) -> list[dict[int, bytes]]:
    """The directories of a file's pages, tag by tag, without smaller copies and transparency masks.

    None of a file whose first directory is damaged; an empty directory stands for another that is.
    """
    form = FORMS[content[:4]]
    found: list[dict[int, bytes]] = []
    seen: set[int] = set()
    try:
        at = form.first
        while len(found) < MOST_PAGES:
            (start,) = struct.unpack_from(form.order + form.offset, content, at)
            if start == 0:
                break
            if start in seen:
                raise struct.error("directories in a ring")
            seen.add(start)
            (count,) = struct.unpack_from(form.order + form.number, content, start)
            first = start + struct.calcsize(form.order + form.number)
            at = first + count * form.entry
            if at > len(content):
                raise struct.error("a directory beyond the end")
            entries = [content[k : k + form.entry] for k in range(first, at, form.entry)]
            found.append({struct.unpack_from(form.order + "H", entry)[0]: entry for entry in entries})
    except struct.error:
        found += [{}] * bool(found)
    return [page for page in found if not _value(form, page, SUBFILE, 0) & ASIDE] or found[:1]


def is_unsigned(content: bytes, page: dict[int, bytes]) -> bool:
    """Whether a page holds one 32-bit unsigned integer a pixel."""
    form = FORMS[content[:4]]
    wanted = {BITS: 32, SAMPLES: 1, SAMPLE_FORMAT: 1}
    return all(_value(form, page, tag, 1) == value for tag, value in wanted.items())


def alone(content: bytes, page: dict[int, bytes]) -> Page:
    """The file with one page of it alone.

    OpenCV reads 32-bit integers where they are declared signed, and no others: an unsigned page is declared so.
    """
    form, unsigned = FORMS[content[:4]], is_unsigned(content, page)
    if unsigned:
        signed = struct.pack(f"{form.order}HH{form.offset}H", SAMPLE_FORMAT, SHORT, 1, SIGNED)
        page = {**page, SAMPLE_FORMAT: signed.ljust(form.entry, b"\0")}
    start = len(content) + len(content) % 2
    head = content[: form.first] + struct.pack(form.order + form.offset, start)
    directory = struct.pack(form.order + form.number, len(page)) + b"".join(page[tag] for tag in sorted(page))
    end = struct.pack(form.order + form.offset, 0)
    return Page(head + content[len(head) :].ljust(start - len(head), b"\0") + directory + end, unsigned)


def is_whole(content: bytes, page: dict[int, bytes]) -> bool:
    """Whether all strips or tiles of a page lie within the file, and the page was read at all."""
    form = FORMS[content[:4]]
    for where, length in PARTS:
        starts, lengths = _values(content, form, page, where), _values(content, form, page, length)
        if any(start + size > len(content) for start, size in zip(starts, lengths, strict=False)):
            return False
    return bool(page)


def _values(content: bytes, form: Form, page: dict[int, bytes], tag: int) -> tuple[int, ...]:
    """The numbers that a tag holds, none where it is missing or damaged."""
    if tag not in page:
        return ()
    kind, count = struct.unpack_from(f"{form.order}H{form.offset}", page[tag], 2)
    if kind not in CODES or count > len(content):
        return ()
    code, inline = f"{form.order}{count}{CODES[kind]}", 4 + struct.calcsize(form.order + form.offset)
    if struct.calcsize(code) <= form.entry - inline:
        return struct.unpack_from(code, page[tag], inline)
    (start,) = struct.unpack_from(form.order + form.offset, page[tag], inline)
    return struct.unpack_from(code, content, start) if start + struct.calcsize(code) <= len(content) else ()


def _value(form: Form, page: dict[int, bytes], tag: int, default: int) -> int:
    """The one number that a tag holds; `default` where it is missing or holds others."""
    if tag not in page:
        return default
    kind, count = struct.unpack_from(f"{form.order}H{form.offset}", page[tag], 2)
    if count != 1 or kind not in CODES:
        return default
    at = 4 + struct.calcsize(form.order + form.offset)
    return int(struct.unpack_from(form.order + CODES[kind], page[tag].ljust(20, b"\0"), at)[0])
