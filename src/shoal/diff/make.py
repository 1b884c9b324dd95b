"""Makes an update file of two models: read, subtracted, coded and written chunk by chunk, in bounded memory."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shoal.diff.codec import find
from shoal.diff.difference import Difference
from shoal.diff.grid import Grid
from shoal.diff.update_format import Chunks, Header, Signer, rows_of
from shoal.diff.update_writer import UpdateWriter, pack
from shoal.diff.work import Memory, in_order
from shoal.domain import DIGEST_BYTES, hashed, le64
from shoal.errors import ArgumentError, shown
from shoal.kernels import dispatch
from shoal.limits import SAMPLES_MAX
from shoal.model.digest import encode_key
from shoal.model.file import ModelFile
from shoal.model.layout import selects
from shoal.model.output import place_of

PathLike = str | os.PathLike[str]
#: (bytes done, bytes to do), called by the thread that called
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """How to make an update.

    codec    name in `codec.CODECS`
    include  globs on tensors' keys; empty: all.  Other tensors stay local: the update has nothing of them
    exclude  globs; wins over include
    samples  that the new model was trained on: its weight in a mean; None: not told
    seed     of the rotation, 0 ... 2**64 - 1, for files that can be made again; None: random, as it should be where
             several updates are averaged: their errors then are independent
    signer   who signs; None: nobody
    threads  0: SHOAL_THREADS or all cores
    progress called with (bytes read, bytes to read)
    """

    codec: str = "eden-8"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    samples: int | None = None
    seed: int | None = None
    signer: Signer | None = None
    threads: int = 0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        find(self.codec)
        if self.samples is not None and not 1 <= self.samples <= SAMPLES_MAX:
            raise ArgumentError("diff.samples", f"samples is {self.samples}; expected 1 to {SAMPLES_MAX}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ArgumentError("diff.seed", f"seed is {self.seed}; expected 0 to {2**64 - 1}")
        if self.threads < 0:
            raise ArgumentError("diff.threads", f"threads is {self.threads}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class DiffReport:
    """What `make_update` did.

    output, base, new   paths
    codec, samples      as asked
    tensors, numbers    that the update is about
    tensors_local       that it leaves alone
    model_bytes         of those tensors in the base
    file_bytes          of the update file
    base_digest         of the base (docs/FORMAT.md, "Update files"), hexadecimal
    digest              that ends the file, hexadecimal
    signed              whether it has a signature
    seconds             from opening the first file to the last rename
    """

    output: str
    base: str
    new: str
    codec: str
    samples: int | None
    tensors: int
    numbers: int
    tensors_local: int
    model_bytes: int
    file_bytes: int
    base_digest: str
    digest: str
    signed: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def make_update(base: PathLike, new: PathLike, output: PathLike, options: DiffOptions | None = None) -> DiffReport:
    """Write the update that leads from ``base`` to ``new``.

    raises  ArgumentError  the options or the output are at fault
            InputError     a file is: no model, another architecture, NaN or Inf, a tensor that differs and must not
            MachineError   the disk is full, permission is missing ...
    In each case nothing was written; an old file of the output's name is whole.
    """
    options = DiffOptions() if options is None else options
    start = time.monotonic()
    with ModelFile.open(base) as old_file, ModelFile.open(new) as new_file:
        _refuse_input(output, (old_file, new_file))
        difference = Difference(
            old_file, new_file, lambda key: selects(key, options.include, options.exclude)
        )  # fmt: skip
        if not difference.base.layout.elements:
            raise ArgumentError("diff.empty", f"{shown(str(base))}: no floating numbers are selected; nothing to diff")
        header = _header(difference, options)
        chunks = Chunks(Grid.of(difference.base.layout.elements), find(options.codec), header.seed)
        with UpdateWriter(output, header) as writer:
            _write_chunks(difference, chunks, writer, options)
            for file in (old_file, new_file):
                file.check_unchanged()
            base_digest = difference.base.digest()
            digest = writer.commit(base_digest, options.signer)
    return DiffReport(
        output=str(output),
        base=str(base),
        new=str(new),
        codec=options.codec,
        samples=options.samples,
        tensors=len(difference.base.layout.tensors),
        numbers=difference.base.layout.elements,
        tensors_local=len(difference.base.local),
        model_bytes=difference.base.nbytes,
        file_bytes=writer.size,
        base_digest=base_digest.hex(),
        digest=digest.hex(),
        signed=options.signer is not None,
        seconds=time.monotonic() - start,
    )


def _refuse_input(output: PathLike, files: tuple[ModelFile, ...]) -> None:
    taken = {place_of(file.path) for file in files} | {place_of(data) for file in files for data in file.data_files()}
    if place_of(output) in taken:
        raise ArgumentError("diff.output", f"output {shown(str(output))} is one of the models; expected another path")


def _header(difference: Difference, options: DiffOptions) -> Header:
    seed = b""
    if find(options.codec).rotates:
        seed = secrets.token_bytes(DIGEST_BYTES)
        if options.seed is not None:
            seed = hashed(b"shoal-update/v1/", "seed", le64(options.seed))
    layout = difference.base.layout
    return Header(
        base=bytes(DIGEST_BYTES),
        layout=layout.digest,
        codec=options.codec,
        seed=seed,
        samples=options.samples,
        author=b"" if options.signer is None else options.signer.public,
        tensors=rows_of(layout),
        local=tuple(sorted(encode_key(key) for key in difference.base.local)),
    )


def _write_chunks(difference: Difference, chunks: Chunks, writer: UpdateWriter, options: DiffOptions) -> None:
    def work(number: int, memory: Memory) -> tuple[bytes, bytes]:
        first, count = chunks.elements(number)
        x, b = difference.read(first, count, memory)
        tile = chunks.tile(number)
        coded = memory.get("coded", np.uint8, chunks.codec.size(tile))
        try:
            chunks.codec.encode(x, b, tile, coded)
        except ArgumentError as error:
            if not error.code.startswith("diff."):
                raise
            raise difference.refuse(first, count) from None
        return pack(coded)

    done, total = 0, chunks.grid.elements
    for number, packed in enumerate(in_order(chunks.count, work, options.threads or dispatch.thread_count())):
        writer.put(*packed)
        done += chunks.elements(number)[1]
        if options.progress is not None:
            options.progress(2 * difference.base.nbytes * done // total, 2 * difference.base.nbytes)
