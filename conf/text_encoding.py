"""Text files that are not in UTF-8: their encoding is recognised, and the message has the command that converts them."""

import os
import shlex
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE, getincrementaldecoder
from pathlib import Path

HEAD = 2**16  # bytes at the beginning of a file that show its encoding
FEW = 4  # Chinese characters below which nothing is concluded from bytes that could be some
SHOWN = 12  # characters of the text as it would read
MARKS = {BOM_UTF32_LE: "UTF-32", BOM_UTF32_BE: "UTF-32", BOM_UTF16_LE: "UTF-16", BOM_UTF16_BE: "UTF-16"}  # the longer ones first: one begins another
ZEROS = {(True, False): "UTF-16BE", (False, True): "UTF-16LE"}  # of an ASCII character, as JSON and most tables begin (RFC 4627, section 3)
PACKERS = {".gz": "gzip -dc", ".zst": "zstd -dc"}


def other_encoding(path: Path, head: bytes) -> str | None:
    """The message for a file whose first bytes show a different encoding; None where they are UTF-8, or show no encoding."""
    name = marked_encoding(head)
    if name is not None:
        return f"{path} is in {name}, and it is read as UTF-8. Convert it: {command(path, name)}"
    chinese = read_as_chinese(head)
    if not chinese:
        return None
    return f"{path} is not in UTF-8. In GB18030 (GBK, GB2312) it reads {chinese[:SHOWN]!r}. If that is right, convert it: {command(path, 'GB18030')}"


def other_name(path: str) -> str | None:
    """The message for a path that is not UTF-8 (Python keeps such bytes as surrogates), with a command for bash and zsh; None where it is."""
    at = next((index for index, part in enumerate(path.split("/")) if not is_utf8(part)), None)
    if at is None:
        return None
    before, name = "".join(f"{part}/" for part in path.split("/")[:at]), path.split("/")[at]
    chinese = decoded(os.fsencode(name), "gb18030")
    said = f" In GB18030 (GBK, GB2312) it reads {chinese!r}." if chinese else ""
    command = f"mv {shlex.quote(before) if before else ''}$'{in_bytes(name)}' {shlex.quote(before + (chinese or 'NEW'))}"
    return f"{before}{in_bytes(name)} has a name that is not UTF-8, and libraries cannot open it.{said} Rename it: {command}"


def is_utf8(text: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def in_bytes(text: str) -> str:
    """As bash reads it within $'...'."""
    return os.fsencode(text.replace("\\", "\\\\").replace("'", "\\'")).decode("utf-8", "backslashreplace")


def marked_encoding(head: bytes) -> str | None:
    """The encoding that the mark at the beginning names, or the zeros in the first character show."""
    marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    return marked or (ZEROS.get((head[0] == 0, head[1] == 0)) if len(head) > 1 else None)


def read_as_chinese(head: bytes) -> str:
    """The characters that are not ASCII, if the bytes are not UTF-8 and all of them are of GB2312: other encodings read so give rare characters."""
    if decoded(head, "utf-8") is not None:
        return ""
    letters = "".join(letter for letter in decoded(head, "gb18030") or "" if not letter.isascii())
    try:
        letters.encode("gb2312")
    except UnicodeEncodeError:
        return ""
    return letters if len(letters) >= FEW else ""


def decoded(head: bytes, encoding: str) -> str | None:
    """None where the bytes are not in the encoding; the last character may be cut."""
    try:
        return getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None


def command(path: Path, encoding: str) -> str:
    packer = PACKERS.get(path.suffix)
    plain = path.with_suffix("") if packer else path
    new = shlex.quote(str(plain.with_stem(f"{plain.stem}_utf8")))
    given = shlex.quote(str(path))
    return f"{packer} {given} | iconv -f {encoding} -t UTF-8 > {new}" if packer else f"iconv -f {encoding} -t UTF-8 {given} > {new}"
