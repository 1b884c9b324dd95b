"""Recognise files that are not ONNX, to say what they are."""

from __future__ import annotations

from typing import Final

_MAGIC: Final = (
    (b"PK\x03\x04", "a zip archive (npz, or a PyTorch or Keras checkpoint)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights)"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"\x7fELF", "a program"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GGUF", "a GGUF file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)


def kind_of(head: bytes) -> str:
    """What a file is by its first bytes (512 will do), in words for people; "" if they do not say."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[4:8] in (b"TFL3", b"ORTM"):
        return "a TensorFlow Lite model" if head[4:8] == b"TFL3" else "an ORT format model; convert it back to ONNX"
    if (
        head[:1] == b"\x80"
        and head[1:2] in b"\x02\x03\x04\x05"
        and (head[2:3] in b"}](X\x8a\x95c\x8ckKM" or len(head) < 3)
    ):
        return "a Python pickle"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"<":
        return "an HTML or XML page"
    if start[:1] in (b"{", b"["):
        return "a JSON document"
    if head and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head) and _is_text(head):
        return "a text"
    return ""


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(head) and error.start > len(head) - 4
    return True
