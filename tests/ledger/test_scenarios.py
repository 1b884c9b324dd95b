"""Transcripts: commands to a cluster, and what it printed.  SHOAL_REWRITE=1 writes the printed part anew.

A file is blocks of commands, a line of dashes, and the reaction, with a comment for the reader before.  Commands:

    cluster abc [pre_vote=off check_quorum=off ...]   cores with empty logs (timeouts: a 10 ticks, b 13, c 16 ...)
    log a 1 1 4 [term=5 vote=b commit=2]              start a with a log of these terms
    campaign a | tick a 3 | propose a x | change a +d | transfer a b | read a r1 | compact a 3
    join d                                            a core with nothing but the first members and an introduction
    run                                               deliver everything until silence
    step a                                            a works, and what it sends waits on its links
    deliver a b | drop a b                            what waits from a to b arrives, or is lost ("*": anybody)
    cut a | heal                                      lose everything from and to a; or nobody
    crash a | restart a | backup a | restore a        its disk stays; a copy of it is kept, put back
    show                                              one line for each core: role, term, log, commit
    quiet | loud                                      do not, do print messages
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from raft_cluster import chain, die, members_of

from shoal.errors import ArgumentError
from shoal.ledger.entry import Entry
from shoal.ledger.members import Configuration
from shoal.ledger.message import (
    AnyMessage,
    Append,
    Appended,
    AskVote,
    GiveVote,
    Heartbeat,
    HeartbeatReply,
    Hello,
    Outdated,
    SnapshotChunk,
    SnapshotReply,
)
from shoal.ledger.raft import Hooks, Options, Raft
from shoal.ledger.store import HardState, Snapshot

FOLDER = Path(__file__).parent / "scenarios"
LINE = "----"


def bare(index: int, term: int) -> str:
    return f"{index}/{term}"


def shown(m: AnyMessage) -> str:
    """One line for one message: index/term for places in the log."""
    text = ""
    if isinstance(m, AskVote):
        text = f"{'would you vote' if m.pre else 'vote'} for log {bare(m.last_index, m.last_term)}"
        text += " (transfer)" if m.transfer else ""
    elif isinstance(m, GiveVote):
        text = f"{'would ' if m.pre else ''}{'grant' if m.granted else 'refuse'}"
    elif isinstance(m, Append):
        entries = " ".join(f"{bare(e.index, e.term)}{words(e.payload)}" for e in m.entries) or "nothing"
        text = f"after {bare(m.prev_index, m.prev_term)}: {entries}; commit {m.commit}"
    elif isinstance(m, Appended):
        text = f"rejected after {m.index}, try {bare(m.hint_index, m.hint_term)}" if m.rejected else f"up to {m.index}"
    elif isinstance(m, Heartbeat):
        text = f"commit {m.commit}"
    elif isinstance(m, HeartbeatReply):
        text = f"last {m.last_index}"
    elif isinstance(m, SnapshotChunk):
        text = f"{bare(m.head.index, m.head.term)}, bytes {m.offset}..{m.offset + len(m.data)} of {m.head.size}"
    elif isinstance(m, SnapshotReply):
        text = f"{m.index}: has {m.offset} bytes"
    elif isinstance(m, Hello):
        text = f"life {m.generation >> 32}, log {bare(m.last_index, m.last_term)}"
    elif isinstance(m, Outdated):
        text = f"life {m.accused >> 32} is not your newest"
    return f"{m.sender.decode()} -> {m.to.decode()} {type(m).__name__} term {m.term}{': ' if text else ''}{text}"


def words(payload: bytes) -> str:
    return f" {payload.decode()}" if payload else " -"


class Stage:
    """The cluster of one transcript."""

    def __init__(self) -> None:
        self.cores: dict[str, Raft] = {}
        self.disks: dict[str, tuple[HardState, list[Entry], Snapshot | None]] = {}
        self.backups: dict[str, tuple[HardState, list[Entry], Snapshot | None]] = {}
        self.waiting: list[AnyMessage] = []
        self.cuts: set[str] = set()
        self.out: list[str] = []
        self.loud = True
        self.options = Options()
        self.members = ""
        self.before: dict[str, tuple[str, int]] = {}
        self.joined: set[str] = set()
        self.lives = 0

    # --- commands -----------------------------------------------------------------------------------------------------

    def do(self, line: str) -> None:
        command, *words = line.split()
        call: Callable[..., None] = getattr(self, f"do_{command}")
        call(*words)

    def do_cluster(self, members: str, *settings: str) -> None:
        values: dict[str, object] = {"announce": False}
        for setting in settings:
            name, value = setting.split("=")
            values[name] = value == "on" if value in ("on", "off") else int(value)
        self.options = Options(**values)  # type: ignore[arg-type]
        self.members = members
        for name in members:
            self.disks[name] = (HardState(), [], None)
            self.start(name)

    def do_log(self, name: str, *parts: str) -> None:
        terms = [int(p) for p in parts if "=" not in p]
        more = dict(p.split("=") for p in parts if "=" in p)
        term = int(more.get("term", terms[-1] if terms else 0))
        hard = HardState(term, more.get("vote", "").encode(), int(more.get("commit", 0)))
        self.disks[name] = (hard, chain(terms, [b"%d" % t for t in terms]), None)
        self.start(name)

    def do_join(self, name: str) -> None:
        self.disks[name] = (HardState(), [], None)
        self.joined.add(name)
        self.start(name)

    def do_campaign(self, name: str) -> None:
        self.cores[name].campaign()

    def do_tick(self, name: str, times: str = "1") -> None:
        for _ in range(int(times)):
            self.cores[name].tick()

    def do_propose(self, name: str, payload: str) -> None:
        done = self.cores[name].propose(payload.encode())
        self.say(
            f"{name} {'refuses ' + payload + ': ' + done.refused if done.refused else f'takes {payload} at {bare(done.index, done.term)}'}"
        )

    do_change = do_propose

    def do_transfer(self, name: str, to: str) -> None:
        self.say(f"{name} hands over to {to}: {self.cores[name].transfer(to.encode()) or 'started'}")

    def do_read(self, name: str, context: str) -> None:
        self.say(f"{name} is asked to read {context}: {self.cores[name].read(context.encode()) or 'started'}")

    def do_compact(self, name: str, index: str) -> None:
        try:
            snapshot = self.cores[name].compact(int(index), b"the state after entry " + index.encode())
        except ArgumentError as error:
            self.say(f"{name}: {error}")
            return
        hard, entries, _ = self.disks[name]
        self.disks[name] = (hard, [e for e in entries if e.index > snapshot.index], snapshot)

    def do_run(self) -> None:
        for _ in range(300):
            worked = [self.work(name) for name in list(self.cores)]
            arriving, self.waiting = self.waiting, []
            for m in arriving:
                self.arrive(m)
            if not any(worked) and not arriving:
                return
        self.say("... without end")

    def do_step(self, name: str) -> None:
        self.work(name)

    def do_deliver(self, sender: str, to: str) -> None:
        for m in self.take(sender, to):
            self.arrive(m)

    def do_drop(self, sender: str, to: str) -> None:
        for m in self.take(sender, to):
            self.say(f"lost: {shown(m)}")

    def do_cut(self, *names: str) -> None:
        self.cuts.update(names)

    def do_heal(self) -> None:
        self.cuts.clear()

    def do_crash(self, name: str) -> None:
        del self.cores[name]

    def do_restart(self, name: str) -> None:
        self.start(name)

    def do_backup(self, name: str) -> None:
        hard, entries, snapshot = self.disks[name]
        self.backups[name] = (hard, list(entries), snapshot)

    def do_restore(self, name: str) -> None:
        hard, entries, snapshot = self.backups[name]
        self.disks[name] = (hard, list(entries), snapshot)
        self.start(name)

    def do_show(self) -> None:
        for name in sorted(self.cores):
            core = self.cores[name]
            log = core.log
            terms = (
                " ".join(([f"[..{log.floor}]"] if log.floor else []) + [str(e.term) for e in log.entries]) or "empty"
            )
            members = "".join(p.decode() for p in core.configuration.voters)
            learners = "".join(p.decode() for p in core.configuration.learners)
            barred = ", barred" if core.state.barred else ""
            self.say(
                f"{name}: {core.role.name.lower()}, term {core.term}{barred}, log {terms}, commit {log.committed}, "
                f"members {members}{'+' + learners if learners else ''}"
            )

    def do_quiet(self) -> None:
        self.loud = False

    def do_loud(self) -> None:
        self.loud = True

    # --- what they do to the cores ------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        self.out.append(text)

    def start(self, name: str) -> None:
        hard, entries, snapshot = self.disks[name]
        hard = HardState(hard.term, hard.vote, hard.commit, hard.generation + 1, hard.barred, hard.seen)
        self.disks[name] = (hard, entries, snapshot)
        self.lives += 1
        mark = self.lives  # every life of every node gets another
        hooks = Hooks(draw=lambda n: mark if n == 2**32 else die(name, n), members_of=members_of)
        ids = tuple(m.encode() for m in self.members)
        self.cores[name] = Raft(name.encode(), hooks, self.options, hard, entries, snapshot, Configuration(ids))
        if name in self.joined:
            self.cores[name].introduce([n.encode() for n in self.disks])
        self.before[name] = ("follower", self.cores[name].term)

    def work(self, name: str) -> bool:
        """Do what a core asks for; True if it asked for anything."""
        core = self.cores[name]
        worked = False
        while core.has_ready():
            worked = True
            ready = core.ready()
            self.persist(name, core, ready)
            self.note_role(name, core)
            if ready.snapshot is not None:
                self.say(f"{name} installs the snapshot of {bare(ready.snapshot.index, ready.snapshot.term)}")
            for m in (*ready.early, *ready.messages):
                self.waiting.append(m)
            if ready.committed:
                self.say(
                    f"{name} applies {' '.join(bare(e.index, e.term) + words(e.payload) for e in ready.committed)}"
                )
            for read in ready.reads:
                self.say(f"{name} may answer read {read.context.decode()} from the state after {read.index}")
            core.advance()
            self.note_role(name, core)
        return worked

    def persist(self, name: str, core: Raft, ready: object) -> None:
        log = core.log
        snapshot = core.state.snapshot
        self.disks[name] = (core.state.hard_state(), list(log.entries), snapshot)

    def note_role(self, name: str, core: Raft) -> None:
        now = (core.role.name.lower(), core.term)
        if now != self.before[name]:
            self.before[name] = now
            self.say(f"{name} is now {now[0]} in term {now[1]}")

    def take(self, sender: str, to: str) -> list[AnyMessage]:
        def fits(m: AnyMessage) -> bool:
            return sender in ("*", m.sender.decode()) and to in ("*", m.to.decode())

        found = [m for m in self.waiting if fits(m)]
        self.waiting = [m for m in self.waiting if not fits(m)]
        return found

    def arrive(self, m: AnyMessage) -> None:
        sender, to = m.sender.decode(), m.to.decode()
        lost = sender in self.cuts or to in self.cuts or to not in self.cores
        if self.loud:
            self.say(f"{'lost: ' if lost else ''}{shown(m)}")
        if lost:
            return
        core = self.cores[to]
        before = core.counters.copy()
        core.step(m)
        for reason in sorted(core.counters - before):
            if self.loud:
                self.say(f"  {to} counts: {reason}")


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """(comment and commands as they stand, the commands) of each block; the reactions are left out."""
    found = []
    head: list[str] = []
    commands: list[str] = []
    in_reaction = False
    for line in text.splitlines():
        if line == LINE:
            found.append(("\n".join(head), commands))
            head, commands, in_reaction = [], [], True
        elif in_reaction:
            in_reaction = line != ""
        else:
            head.append(line)
            if line and not line.startswith("#"):
                commands.append(line)
    assert not commands, "commands without a reaction"
    return found


def performed(text: str) -> str:
    """The file as the cluster writes it."""
    stage = Stage()
    parts = []
    for head, commands in blocks(text):
        stage.out = []
        for command in commands:
            stage.do(command)
        parts.append("\n".join([head, LINE, *(stage.out or ["ok"])]) + "\n")
    return "\n".join(parts)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda p: p.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text()
    found = performed(text)
    if os.environ.get("SHOAL_REWRITE") == "1":
        path.write_text(found)
        return
    assert found == text


def test_every_transcript_speaks_to_its_reader() -> None:
    paths = list(FOLDER.glob("*.txt"))
    assert len(paths) >= 8
    for path in paths:
        assert path.read_text().startswith("# "), path
