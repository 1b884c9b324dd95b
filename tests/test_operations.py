"""docs/OPERATIONS.md is true: what it names exists, and its commands, in their order, make a swarm of three machines."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from shoal.model.model import load, save
from site_machines import Machines

ROOT = Path(__file__).resolve().parents[1]
MANUAL = (ROOT / "docs" / "OPERATIONS.md").read_text()
ADDRESSES = {"north": "10.0.0.1", "south": "10.0.0.2", "east": "10.0.0.3", "west": "10.0.0.4"}
FIRST = ("north", "south", "east")


def blocks(language: str) -> list[tuple[str, str]]:
    """(rest of the fence's line, text) of every block in that language."""
    return re.findall(rf"```{language}([^\n]*)\n(.*?)```", MANUAL, re.DOTALL)


def commands() -> list[str]:
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    return lines + re.findall(r"`(shoal [a-z][^`\n]*)`", MANUAL)


def test_commands_and_options_exist() -> None:
    import typer

    from shoal.cli.commands import app

    top = typer.main.get_command(app)
    found = 0
    for line in commands():
        words = shlex.split(line)
        if words[0] != "shoal":
            continue
        found += 1
        at = top
        rest = words[1:]
        while rest and hasattr(at, "commands"):
            assert rest[0] in at.commands, line
            at, rest = at.commands[rest[0]], rest[1:]
        options = {o for p in at.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in rest:
            assert not word.startswith("--") or word in options, f"{line}: {word}"
    assert found > 25


def test_files_that_it_shows_are_whole(tmp_path: Path) -> None:
    from shoal.config import read_site

    for _, text in blocks("toml"):
        (tmp_path / "site.toml").write_text('name = "north"\n' + text)
        read_site(tmp_path / "site.toml")
    metrics = (ROOT / "src/shoal/swarm/metrics.py").read_text() + (ROOT / "docs/FORMAT.md").read_text()
    ((_, rules),) = blocks("yaml")
    for rule in yaml.safe_load(rules)["groups"][0]["rules"]:
        for name in re.findall(r"shoal_([a-z_]+)", rule["expr"]):
            assert name.removesuffix("_total") in metrics, rule
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in re.findall(r"src\[([a-z,]+)\]", MANUAL):
        assert set(group.split(",")) <= set(extras)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    ((_, unit),) = blocks("ini")
    path = tmp_path / "shoal.service"
    path.write_text(unit.replace("/usr/local/bin/shoal", sys.executable).replace("User=shoal", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and str(path) not in done.stderr, done.stderr


# --- as a new user would ----------------------------------------------------------------------------------------------


def until(true: object, what: str, seconds: float = 120) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Trial:
    """Carries out the manual: `say` the values that people read to each other."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self.say = {"DIGEST": "", "FINGERPRINT": ""}
        self.done: set[str] = set()
        ((_, unit),) = blocks("ini")
        self.service = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.M)[1])  # type: ignore[index]

    def at(self, name: str) -> Path:
        return self.machines.folder / name

    def words(self, line: str, name: str) -> list[str]:
        """A line of the manual as that machine's command."""
        for placeholder, value in {"NAME": name, "ADDRESS": ADDRESSES[name], **self.say}.items():
            line = line.replace(placeholder, value)
        words = shlex.split(line)
        if words[0].rpartition("/")[2] == "shoal":
            return [sys.executable, "-m", "shoal", *words[1:]]
        assert words[0] == "sed", line
        return words

    def run(self, names: tuple[str, ...], line: str) -> list[str]:
        """Run it at these machines, at the same time; what each printed."""
        self.done.add(line)
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": env}
        running = [self.machines.start(name, self.words(line, name), **pipes) for name in names]
        printed = []
        for name, process in zip(names, running, strict=True):
            out, err = process.communicate(timeout=180)
            assert process.returncode == 0, f"{name}: {line}\n{out}{err}"
            printed.append(out)
        return printed

    def section(self, number: int) -> list[str]:
        """Run all blocks of a section, in order; what was printed."""
        text = re.search(rf"^## {number}\..*?(?=^## |\Z)", MANUAL, re.M | re.DOTALL)
        assert text is not None
        printed = []
        for place, block in re.findall(r"```sh ([^\n]*)\n(.*?)```", text[0], re.DOTALL):
            who, _, how = place.partition(" ")
            assert who in ("each", *ADDRESSES) and how in ("", "together"), place
            for line in block.splitlines():
                groups = [FIRST] if how else [(name,) for name in (FIRST if who == "each" else (who,))]
                for names in groups:
                    printed += self.run(names, line)
                self.carry()
        return printed

    def carry(self) -> None:
        """What people send each other: cards, the genesis, ballots."""
        for pattern in ("*.card", "*.ballot", "genesis.shoal-ledger"):
            for path in self.machines.folder.glob(f"*/{pattern}"):
                for name in ADDRESSES:
                    target = self.at(name) / path.name
                    if not target.exists() or target.stat().st_mtime_ns < path.stat().st_mtime_ns:
                        shutil.copy2(path, target)

    def start(self, name: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        with (self.at(name) / "node.log").open("ab") as log:
            self.nodes[name] = self.machines.start(
                name, self.words(shlex.join(self.service), name), stderr=log, env=env
            )

    def stop(self, name: str) -> int:
        self.nodes[name].terminate()
        return self.nodes.pop(name).wait(60)

    def as_a_service(self, name: str) -> None:
        """What systemd and a person do until this site is connected: start it again when it fails, or when it sits there
        without a leader."""
        alone_s = time.monotonic()
        while sum(m["connected"] for m in self.status(name).get("members", [])) < 3 or not self.rotated(name):  # type: ignore[attr-defined]
            if self.nodes[name].poll() is not None:
                assert self.nodes.pop(name).returncode == 1
                self.start(name)
            elif time.monotonic() - alone_s > 40:
                self.stop(name)
                self.start(name)
                alone_s = time.monotonic()
            time.sleep(0.5)

    def rotated(self, name: str) -> bool:
        """Whether the ledger there says that its newest keys are in use."""
        from shoal.config import read_site
        from shoal.ledger.archive import latest
        from shoal.swarm.site_keys import in_use, read_pairs

        site = read_site(self.at(name) / "site.toml")
        return in_use(read_pairs(site), latest(Path(site.data) / "ledger.db").state.registry)[1] is None

    def status(self, name: str) -> dict[str, object]:
        try:
            found: dict[str, object] = json.loads(self.run((name,), "shoal status site.toml --format json")[0])
        except AssertionError:
            return {}
        return found

    def members(self, name: str) -> dict[str, dict[str, object]]:
        listed = json.loads(self.run((name,), "shoal members list site.toml --format json")[0])["members"]
        return {m["name"]: m for m in listed}


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    try:
        with Machines(tmp_path, ADDRESSES) as made:
            yield made  # type: ignore[misc]
    except PermissionError as error:
        pytest.skip(str(error))


def trained(trial: Trial, names: tuple[str, ...], base: str, by: float) -> None:
    """Stands for training: each site's model moves away from the base."""
    for number, name in enumerate(names):
        with load(trial.at(name) / base) as model:
            model["w"] = model["w"] + np.float32(by + number)
            model.save(trial.at(name) / "trained.onnx")


@pytest.mark.slow
def test_three_machines_by_the_manual(machines: Machines) -> None:
    trial = Trial(machines)
    for name in ADDRESSES:
        save({"w": np.zeros(2000, np.float32)}, trial.at(name) / "base.onnx")
    if shutil.which("nft"):
        ((_, rules),) = blocks("nft")
        for name in ADDRESSES:
            others = ", ".join(a for n, a in ADDRESSES.items() if n != name)
            text = re.sub(r"elements = \{.*\}", f"elements = {{ {others} }}", rules)
            (trial.at(name) / "shoal.nft").write_text(text)
            assert machines.start(name, ["nft", "-f", "shoal.nft"]).wait(20) == 0
    trial.section(4)
    for name in FIRST:
        text = (trial.at(name) / "site.toml").read_text()
        times = "\n[times]\ntick_ms = 50\nelection_ms = 1000\nstraggler_grace_s = 5\nsubmit_wait_s = 120\n"
        (trial.at(name) / "site.toml").write_text(text + times)
    # Section 5: the digest goes by telephone in the middle of it.
    printed = trial.run(("north",), re.search(r"```sh north\n(shoal init.*)\n", MANUAL)[1])  # type: ignore[index]
    trial.say["DIGEST"] = re.search(r"digest +([0-9a-f]{64})", printed[0])[1]  # type: ignore[index]
    trial.carry()
    for line in re.search(r"```sh each\n(shoal join.*?)```", MANUAL, re.DOTALL)[1].splitlines():  # type: ignore[index]
        for name in FIRST:
            trial.run((name,), line)
    for name in FIRST:
        assert tomllib.loads((trial.at(name) / "site.toml").read_text())["genesis"] == trial.say["DIGEST"]
    for printed_one in trial.section(6):
        assert "0 faults" in printed_one and "both ways" in printed_one, printed_one
    for name in FIRST:
        trial.start(name)
    try:
        for name in FIRST:
            until(lambda n=name: sum(m["connected"] for m in trial.status(n).get("members", [])) == 3, f"{name} is up")  # type: ignore[misc]
        trained(trial, FIRST, "base.onnx", 1.0)
        trial.section(8)
        merged = [load(trial.at(name) / "merged.onnx") for name in FIRST]
        assert np.allclose(merged[0]["w"], 2.0, atol=0.2) and len({m.digest() for m in merged}) == 1
        trial.section(9)
        before = trial.members("east")["east"]["since"]
        trial.section(10)
        until(lambda: "identity.2.pem" in os.listdir(trial.at("east")), "new keys")
        trial.as_a_service("east")
        assert trial.members("north")["east"]["since"] == before
        comes_and_goes(trial)
        loses_its_disk(trial)
        # All stop, all start: the swarm goes on.
        assert [trial.stop(name) for name in FIRST] == [0, 0, 0]
        for name in FIRST:
            trial.start(name)
        until(lambda: any(m["leads"] for m in trial.status("south").get("members", [])), "somebody leads again")
        trained(trial, FIRST, "data/certified.onnx", 1.0)
        trial.run(FIRST, "shoal submit trained.onnx --samples 812 -o merged.onnx --site site.toml")
    finally:
        for name in list(trial.nodes):
            trial.stop(name)
            print(name, (trial.at(name) / "node.log").read_text()[-1500:])
    assert {line for _, text in blocks("sh") for line in text.splitlines()} <= trial.done, "every command was run"


def loses_its_disk(trial: Trial) -> None:
    """Section 9: what was east comes back with new keys in an empty folder, while the others go on."""
    assert trial.stop("east") == 0
    for path in trial.at("east").iterdir():
        if path.name not in ("base.onnx", "genesis.shoal-ledger"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("north", "south", "west"):
        (trial.at(name) / "east.card").unlink()
    trial.run(("north",), "shoal members remove site.toml east")
    trial.carry()
    trial.run(("south",), "shoal members approve site.toml remove-east.ballot")
    until(lambda: "east" not in trial.members("north"), "east is out")
    trial.run(("east",), "shoal keys . --name east --address tcp://ADDRESS:7700")
    trial.run(("east",), "shoal join site.toml genesis.shoal-ledger --digest DIGEST --new")
    trial.carry()
    trial.run(("north",), "shoal members approve site.toml east.card")
    trial.carry()
    trial.run(("south",), "shoal members approve site.toml add-east.ballot")
    trial.start("east")
    until(lambda: trial.status("east").get("behind") is False and "east" in trial.members("east"), "east caught up")
    until(lambda: sum(m["connected"] for m in trial.status("east")["members"]) == 3, "east is connected")


def comes_and_goes(trial: Trial) -> None:
    """Sections 11 and 12."""
    west = re.search(r"```sh west\n(.*?)```", MANUAL, re.DOTALL)
    assert west is not None
    for line in west[1].splitlines():
        printed = trial.run(("west",), line)
        found = re.search(r"fingerprint +((?:[0-9a-f]{4} ?){8})", printed[0])
        if found:
            trial.say["FINGERPRINT"] = found[1].strip()
    trial.carry()
    lines = [b.strip() for place, b in blocks("sh") if "west" in b and place.strip() in FIRST]
    for line, place in zip(
        lines, (p.strip() for p, b in blocks("sh") if "west" in b and p.strip() in FIRST), strict=True
    ):
        if "promote site.toml" in line:
            until(lambda: "west" in trial.members("north"), "west is let in")
            trial.start("west")
            until(
                lambda: trial.status("west").get("round") == 1 and not trial.status("west")["behind"], "west caught up"
            )
        if "remove site.toml" in line:
            until(lambda: trial.members("north")["west"]["voter"], "west votes")
        trial.run((place,), line)
        trial.carry()
    until(lambda: "west" not in trial.members("south"), "west is out")
    trial.stop("west")
