"""What a machine offers a node: disk and how fast it syncs, memory, open files, CPU."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import stat
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from shoal.config import Site
from shoal.errors import ShoalError, shown
from shoal.kernels import dispatch
from shoal.swarm.finding import Finding

#: free bytes that the ledger and its journal want: years of rounds
LEDGER_ROOM: Final = 256 * 10**6
#: copies of the model that the disk must take: the one in force, the next, and what a training script hands in; and
#: with evaluation the last but one and the best
MODEL_COPIES: Final = 3
KEPT_COPIES: Final = 2
#: and that memory must take: a node's own 2.5, and what hands a model in
MODEL_IN_MEMORY: Final = 4
#: descriptors of a node that talks to nobody, and for each member: control and bulk, both ways, twice while they change
FILES_ALONE: Final = 64
FILES_EACH: Final = 8
#: syncs that are timed; and how many an election's time should hold: a node that waits for its disk says nothing
SYNCS: Final = 5
SYNCS_IN_ELECTION: Final = 10


class Room(msgspec.Struct, frozen=True):
    """What it is for: a site's settings, the bytes of its model (0: not known), how many members the swarm has."""

    site: Site
    model_bytes: int
    members: int

    @property
    def folder(self) -> Path:
        return Path(self.site.data)


Findings = Iterator[Finding]


def look(room: Room) -> Findings:
    """All checks, in order."""
    for check in CHECKS:
        yield from check(room)


def _disk(room: Room) -> Findings:
    folder = room.folder
    there = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        about = os.statvfs(there)
    except OSError as error:
        yield Finding("fault", "disk", f"{shown(str(there))}: {error.strerror}", "make the data folder usable")
        return
    free, model = about.f_bavail * about.f_frsize, room.model_bytes
    copies = MODEL_COPIES + (0 if room.site.evaluate is None else KEPT_COPIES)
    need = copies * model + LEDGER_ROOM
    words = f"{_size(free)} free, {_size(need)} wanted: {copies} models and the ledger"
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("fault", "disk", f"{shown(str(there))}: cannot be written to", "give it to the node's user")
    elif free < model + LEDGER_ROOM // 8:
        yield Finding("fault", "disk", words, "make room, or set `data` to a larger disk")
    elif free < need:
        yield Finding("warning", "disk", words, "make room, or set `data` to a larger disk")
    else:
        yield Finding("ok", "disk", words)
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        advice = f"chmod 700 {shown(str(folder))}"
        yield Finding("warning", "folder", f"{shown(str(folder))}: others of this machine may look into it", advice)


def _syncs(room: Room) -> Findings:
    """How long what is written takes to be on the disk.  Rounds wait for it, and a leader's heartbeats do."""
    there = next(p for p in (room.folder, *room.folder.parents) if p.exists())
    try:
        took_ms = 1000 * statistics.median(_sync_s(there) for _ in range(SYNCS))
    except OSError:
        return  # what is wrong with the folder was said
    election_ms = room.site.times.election_ms
    words = f"a sync to the disk takes {took_ms:.1f} ms, elections {election_ms} ms"
    if took_ms * SYNCS_IN_ELECTION > election_ms:
        wanted = math.ceil(took_ms * SYNCS_IN_ELECTION / 100) * 100
        advice = (
            f"use a quicker disk, or set election_ms = {wanted} or more at every site: leaders would change needlessly"
        )
        yield Finding("warning", "syncs", words, advice)
    else:
        yield Finding("ok", "syncs", words)


def _sync_s(folder: Path) -> float:
    """Seconds that 4 KiB take."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        begin = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - begin


def _memory(room: Room) -> Findings:
    free, need = _memory_free(), MODEL_IN_MEMORY * room.model_bytes
    if not free:
        return
    words = f"{_size(free)} free, {_size(need)} wanted: {MODEL_IN_MEMORY} models"
    if free < need:
        yield Finding("warning", "memory", words, "use a larger machine, or let training free its own before a merge")
    else:
        yield Finding("ok", "memory", words)


def _memory_free() -> int:
    """Bytes that the kernel could give; 0 if it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _files(room: Room) -> Findings:
    limit, need = resource.getrlimit(resource.RLIMIT_NOFILE)[0], FILES_ALONE + FILES_EACH * room.members
    words = f"at most {limit} open files, {need} wanted for {room.members} members"
    if 0 <= limit < need:
        yield Finding("fault", "files", words, "raise the limit: ulimit -n 4096, or LimitNOFILE= in the systemd unit")
    else:
        yield Finding("ok", "files", words)


def _cpu(room: Room) -> Findings:  # noqa: ARG001
    try:
        level, cores = dispatch.level(), len(os.sched_getaffinity(0))
    except ShoalError as error:
        yield Finding("fault", "cpu", shown(str(error), 300), "unset SHOAL_LEVEL, or build Shoal on this machine")
        return
    words = f"{cores} cores, kernels {level}"
    if level == "portable":
        advice = "results are the same, rounds slower than with AVX2"
        yield Finding("warning", "cpu", words, advice)
    elif not _has_aes():
        yield Finding("warning", "cpu", f"{words}, no AES instructions", "sealing will limit fast networks")
    else:
        yield Finding("ok", "cpu", f"{words}, AES instructions")


def _has_aes() -> bool:
    """Whether the kernel lists AES instructions; True where it lists nothing."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.lower().startswith(("flags", "features")):
                return "aes" in line.split()
    return True


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"


CHECKS: Final[tuple[Callable[[Room], Findings], ...]] = (_disk, _syncs, _memory, _files, _cpu)
