"""shoal ledger: what a swarm did, for auditors: show, verify, export, compare."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import put
from shoal.cli.ledger_view import (
    entry_facts,
    print_entries,
    print_members,
    print_rounds,
    print_summary,
    round_facts,
    summary,
)
from shoal.cli.show import Format, line, note, print_json
from shoal.errors import InputError, MachineError, shown

if TYPE_CHECKING:
    from shoal.ledger.archive import Archive
    from shoal.ledger.entry import Entry
    from shoal.ledger.export import ExportReader
    from shoal.ledger.statement import Statement
    from shoal.ledger.verify import Report

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The swarm's signed history: show it, verify it offline, export it, compare two copies.",
)
#: entries from which a progress bar is worth drawing
_BAR_ENTRIES_MIN = 20_000

File = Annotated[
    Path, typer.Argument(help="An exported ledger (.shoal-ledger) or a node's ledger file (.db).", show_default=False)
]
Json = Annotated[Format, typer.Option("--format", help="text or json.")]


def parse_digest(text: str, what: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise typer.BadParameter(f"{what} is 64 hexadecimal digits, found {shown(text)!r}")
    return data


def _genesis(text: str | None) -> bytes | None:
    return None if text is None else parse_digest(text, "a genesis digest")


def _noted(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    index, _, digest = text.partition(":")
    if not index.isascii() or not index.isdigit() or len(index) > 18 or index == "0":
        raise typer.BadParameter(f"a head is INDEX:DIGEST, found {shown(text)!r}")
    return int(index), parse_digest(digest, "the digest of a head")


@contextmanager
def _opened(path: Path) -> Iterator[Archive | ExportReader]:
    """A ledger of either kind, told apart by its first bytes."""
    from shoal.ledger.archive import SQLITE_MAGIC, Archive
    from shoal.ledger.export import ExportReader

    name = shown(str(path))
    try:
        # Not blocking: the name may be that of a pipe, which has no end to wait for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError("ledger.file", f"{name}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("ledger.file", f"{name}: not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
            file.seek(0)
            yield ExportReader(file, name)
            return
    # SQLite's own locks would go if this process closed another descriptor of the file: so it is closed by now.
    archive = Archive(path)
    try:
        yield archive
    finally:
        archive.close()


@contextmanager
def _bar(last: int) -> Iterator[Callable[[int], None] | None]:
    """Draws how many of ``last`` entries are done, on standard error, where there is somebody to look."""
    if last < _BAR_ENTRIES_MIN or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("verifying", total=last)
        yield lambda done: drawn.update(task, completed=done)


@app.command("verify")
def verify(
    file: File,
    genesis: Annotated[
        str, typer.Option("--genesis", metavar="DIGEST", help="The swarm's genesis digest, from a source you trust.")
    ],
    head: Annotated[
        str | None,
        typer.Option(
            "--head", metavar="INDEX:DIGEST", help="A head that you noted earlier, or another site's: it must be in."
        ),
    ] = None,
    format: Json = Format.text,
) -> None:
    """Check a ledger offline: chain, signatures, seals, certificates, members, order of rounds.

    Needs the file and the genesis digest, and nothing else. Says which entry is the first wrong one, and why. Note the
    head that is printed: with --head, a later check proves that no entry up to there was taken away or changed.
    """
    from shoal.ledger.verify import verify as check

    expected, noted = _genesis(genesis), _noted(head)
    with _opened(file) as ledger, _bar(ledger.header.last) as progress:

        def watch(entry: Entry, _statement: Statement) -> None:
            if progress is not None and entry.index % 512 == 0:
                progress(entry.index)

        report = check(ledger, expected, noted=noted, watch=watch)
        name = ledger.name
    if format is Format.json:
        print_json({"file": name, "verified": report.fault is None, **summary(report), **_error(name, report)})
    elif report.fault is None:
        print_summary(report)
        line("")
        line(f"verified: all {report.entries} entries hold, with {report.signatures} signatures")
    _leave(name, report)


@app.command("show")
def show(
    file: File,
    last: Annotated[int, typer.Option("--last", min=0, help="Rounds to list, newest last; 0: all.")] = 20,
    entries: Annotated[
        str | None, typer.Option("--entries", metavar="FIRST-LAST", help="List these entries instead of rounds.")
    ] = None,
    genesis: Annotated[
        str | None, typer.Option("--genesis", metavar="DIGEST", help="Refuse the ledger of another swarm.")
    ] = None,
    format: Json = Format.text,
) -> None:
    """Show what a swarm did: its members, and for each round who took part, with how many samples, and what came of it.

    The chain and the rules are checked, signatures are not: use `shoal ledger verify` before you rely on it.
    """
    from shoal.ledger.verify import verify as check

    wanted = _range(entries)
    listed: list[dict[str, Any]] = []
    with _opened(file) as ledger:

        def watch(entry: Entry, statement: Statement) -> None:
            if wanted[0] <= entry.index <= wanted[1]:
                listed.append(entry_facts(entry, statement))

        report = check(ledger, _genesis(genesis), signatures=False, watch=watch)
        name = ledger.name
    rounds = report.rounds[-last:] if last else report.rounds
    if format is Format.json:
        found = {"entries": listed} if entries else {"rounds": [round_facts(r) for r in report.rounds]}
        print_json({"file": name, "signatures_checked": False, **summary(report), **found, **_error(name, report)})
    elif report.entries:
        print_summary(report)
        print_members(report)
        if entries:
            print_entries(listed, {i: m.name for i, m in report.state.registry.members.items()})
        else:
            print_rounds(report, rounds)
        if report.fault is None:
            note("signatures were not checked: shoal ledger verify does that")
    _leave(name, report)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="A node's ledger file (.db), running or not.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it (.shoal-ledger).")],
    genesis: Annotated[
        str | None, typer.Option("--genesis", metavar="DIGEST", help="Refuse the ledger of another swarm.")
    ] = None,
    format: Json = Format.text,
) -> None:
    """Write the committed part of a ledger to one file, for auditors and for other sites to compare with.

    The file holds digests, signatures, names and counts; no data, no models, no keys but public ones.
    """
    from shoal.ledger.export import write_export
    from shoal.model.output import Output

    expected = _genesis(genesis)
    with _opened(file) as ledger:
        header = ledger.header
        if expected not in (None, header.genesis):
            found = f"genesis {header.genesis.hex()}, expected {genesis}"
            raise InputError("ledger.genesis", f"{ledger.name}: the ledger of another swarm: {found}")
        target = Output(output)
        try:
            into = target.create(0)
            with io.BufferedWriter(_Into(into.write), 2**20) as stream:
                write_export(stream, header, ledger)
            target.commit([(into, output.name)])
        finally:
            target.close()
    where = f"{header.last}:{header.head.hex()}"
    if format is Format.json:
        print_json({"output": str(output), "genesis": header.genesis.hex(), "entries": header.last, "head": where})
        return
    line(f"{shown(str(output))}: {header.last} entries")
    line(f"genesis  {header.genesis.hex()}")
    line(f"head     {where}")


@app.command("compare")
def compare(
    left: File,
    right: File,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="Where to write the proof, if a leader told two histories.")
    ] = None,
    format: Json = Format.text,
) -> None:
    """Compare two copies of one swarm's ledger: is one the beginning of the other, or are there two histories?

    If one leader signed both, the two entries convict it, and --evidence writes them to a file.
    """
    from shoal.ledger.evidence import encode_evidence, find_fork

    with _opened(left) as a, _opened(right) as b:
        if a.header.genesis != b.header.genesis:
            raise InputError("ledger.genesis", f"{a.name} and {b.name} are the ledgers of two swarms")
        fork = find_fork(a.header.genesis, a, b)
        shorter, longer = sorted((a, b), key=lambda ledger: ledger.header.last)
        ends = (shorter.header.last, longer.header.last)
    if fork is None:
        if format is Format.json:
            print_json({"agree": True, "common": ends[0], "longest": ends[1]})
            return
        more = f"; {longer.name} goes on to {ends[1]}" if ends[1] > ends[0] else ""
        line(f"one history: entries 1-{ends[0]} are the same{more}")
        return
    proof = fork.evidence
    if proof is not None and evidence is not None:
        put.replace(evidence, encode_evidence(proof))
    guilty = f"leader {proof.leader.hex()} signed both" if proof else "no single leader signed both"
    message = f"two histories: {shown(str(left))} and {shown(str(right))} part at entry {fork.index}; {guilty}"
    if format is Format.json:
        leader = proof.leader.hex() if proof else None
        error = {"code": "ledger.fork", "message": message}
        print_json({"agree": False, "fork": fork.index, "leader": leader, "error": error})
    note(f"error: {message}")
    raise typer.Exit(1)


# --- ways in and out ---


class _Into(io.RawIOBase):
    """A stream into a function that writes at an offset."""

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self._write_at = write
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        held = bytes(data)
        self._write_at(self._at, held)
        self._at += len(held)
        return len(held)


def _range(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 0
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()) or len(text) > 40:
        raise typer.BadParameter(f"entries are FIRST-LAST, found {shown(text)!r}")
    return int(first), int(last or first)


def _leave(name: str, report: Report) -> None:
    """Exit code 1 and one line if something is wrong."""
    if report.fault is not None:
        note(f"error: {shown(_message(name, report), 4000)}")
        raise typer.Exit(1)


def _message(name: str, report: Report) -> str:
    fault = report.fault
    assert fault is not None
    before = f"; entries 1-{fault.index - 1} hold" if fault.index > 1 else ""
    where = f"entry {fault.index} ({fault.type}): " if fault.index and fault.type != "unreadable" else ""
    return f"{name}: {where}{fault.reason.removeprefix(f'{name}: ')}{before}"


def _error(name: str, report: Report) -> dict[str, Any]:
    fault = report.fault
    if fault is None:
        return {}
    facts = {"code": fault.code, "message": _message(name, report), "index": fault.index, "type": fault.type}
    return {"error": facts}
