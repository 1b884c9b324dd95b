"""A store over a disk that fails: a small library in front of libc fails or shortens one chosen call of the process.

fsync reports an error   pages may be clean after it and never reach the disk, so asking again proves nothing (Rebello et
                         al., "Can Applications Recover from fsync Failures?", ATC 2020)
write takes a part       what is written is written to its end
write is interrupted     EINTR: done again
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_conformance import chain

from shoal.ledger.sqlite_store import SqliteStore

#: fails, or halves, the call with the number SHIM_NTH (from 1) once the file SHIM_ON exists
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int calls;
static int now(const char *kind) {
  const char *what = getenv("SHIM_WHAT"), *on = getenv("SHIM_ON"), *nth = getenv("SHIM_NTH");
  if (!what || strcmp(what, kind) || access(on, F_OK)) return 0;
  return ++calls == atoi(nth);
}
static int sync_(const char *name, int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  if (now("sync")) { errno = EIO; return -1; }
  return real(fd);
}
int fsync(int fd) { return sync_("fsync", fd); }
int fdatasync(int fd) { return sync_("fdatasync", fd); }
ssize_t pwrite64(int fd, const void *from, size_t size, off_t at) {
  ssize_t (*real)(int, const void *, size_t, off_t) = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
  if (size > 1 && now("short")) return real(fd, from, size / 2, at);
  if (now("interrupted")) { errno = EINTR; return -1; }
  if (now("error")) { errno = EIO; return -1; }
  return real(fd, from, size, at);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }
"""

#: appends entry after entry; prints the last acknowledged, and the codes of what was refused
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from store_conformance import chain
from shoal.errors import ShoalError
from shoal.ledger.sqlite_store import SqliteStore
store, entries, acknowledged, codes = SqliteStore(Path(sys.argv[1])), chain(30), 5, []
store.append(entries[:5])
Path(sys.argv[2]).touch()
while acknowledged < 30 and len(codes) < 3:
    try:
        store.append([entries[acknowledged]])
        acknowledged += 1
    except ShoalError as error:
        codes.append(error.code)
print(acknowledged, *codes)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return library


def write_with(shim: Path, folder: Path, what: str, nth: int) -> tuple[int, list[str]]:
    """(the last acknowledged entry, codes of the refusals) of a process whose disk does ``what`` at the nth call."""
    folder.chmod(0o700)
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "SHIM_WHAT": what,
        "SHIM_NTH": str(nth),
        "SHIM_ON": str(folder / "on"),
    }
    words = [sys.executable, "-c", WRITER, str(folder / "ledger.db"), str(folder / "on"), str(Path(__file__).parent)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    acknowledged, *codes = done.stdout.split()
    return int(acknowledged), codes


@pytest.mark.parametrize(("what", "nth"), [("sync", 1), ("sync", 4), ("error", 2), ("error", 5)])
def test_after_a_failed_write_nothing_is_believed(shim: Path, tmp_path: Path, what: str, nth: int) -> None:
    acknowledged, codes = write_with(shim, tmp_path, what, nth)
    # Once failed, the store takes nothing more: the third attempt would have reached a disk that works again.
    assert len(codes) == 3 and codes[1:] == ["store.broken"] * 2 and codes[0].startswith("store.")
    store = SqliteStore(tmp_path / "ledger.db")
    held = store.load()[1]
    store.close()
    assert held == chain(30)[: len(held)] and acknowledged <= len(held) <= acknowledged + 1
    assert 5 <= acknowledged < 30


@pytest.mark.parametrize(("what", "nth"), [("short", 1), ("short", 6), ("interrupted", 2)])
def test_a_write_is_done_to_its_end(shim: Path, tmp_path: Path, what: str, nth: int) -> None:
    assert write_with(shim, tmp_path, what, nth) == (30, [])
    store = SqliteStore(tmp_path / "ledger.db")
    assert store.load()[1] == chain(30) and store.notes == []
    store.close()
