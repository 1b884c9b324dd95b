"""The rules of the house that a machine can read: imports go down, files are touched in few places, nothing unsafe."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "shoal"
MODULES = sorted(SOURCE.rglob("*.py")) + sorted(SOURCE.rglob("*.pyx"))

#: higher may import lower; the same rank only inside one folder.  docs/ARCHITECTURE.md shows the same ranks.
RANKS = {
    "limits": 0,
    "errors": 1,
    "domain": 1,
    "interval": 2,
    "address": 1,
    "exchange_key": 1,
    "failpoint": 2,
    "thresholds": 2,
    "config": 2,
    "kernels": 2,
    "evaluate": 3,
    "model": 3,
    "merge": 3,
    "diff": 3,
    "secure": 3,
    "ledger": 3,
    "swarm": 4,
    "study": 5,
    "adapters": 5,
    "cli": 6,
    "__main__": 7,
}
#: the sideways imports: a merge and a diff of files are loops over places in files (docs/adr/0001, 0005)
SIDEWAYS = {("merge", "model"), ("diff", "model")}


def part(module: str) -> str:
    """ "shoal.model.file" -> "model"; "shoal" -> ""."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def imports(path: Path) -> list[str]:
    """Absolute names of all modules of shoal that a file imports, at any depth."""
    if path.suffix == ".pyx":
        lines = [line.split() for line in path.read_text().splitlines()]
        return [
            w[1] for w in lines if len(w) > 1 and w[0] in ("from", "import", "cimport") and w[1].startswith("shoal")
        ]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which way they go"
            found.append(node.module or "")
            if node.module == "shoal":
                found += [f"shoal.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "shoal"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    me = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if me == "__init__":
        return
    for name in imports(path):
        other = part(name)
        if other in ("", me) or other not in RANKS:
            continue
        allowed = RANKS[other] < RANKS[me] or (me, other) in SIDEWAYS
        assert allowed, f"{path.relative_to(ROOT)} imports {name}: that way is not down"


def test_every_part_has_a_rank() -> None:
    parts = {p.relative_to(SOURCE).parts[0].removesuffix(".py") for p in MODULES} - {"__init__"}
    assert parts <= set(RANKS), f"no rank for {sorted(parts - set(RANKS))}"


#: call or module -> why it must not be there
FORBIDDEN = {
    "pickle": "runs code from bytes",
    "marshal": "runs code from bytes",
    "shelve": "is pickle",
    "eval": "runs code from text",
    "os.system": "a shell with names",
    "yaml.load": "makes any object",
    "yaml.unsafe_load": "makes any object",
    "time.time": "the wall clock decides nothing here; time.monotonic measures",
}
#: where a forbidden name is the purpose
EXCEPTIONS: set[tuple[str, str]] = set()


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


@pytest.mark.parametrize("path", [p for p in MODULES if p.suffix == ".py"], ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_unsafe(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {dotted(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    names |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    for name in names & set(FORBIDDEN):
        assert (str(path.relative_to(SOURCE)), name) in EXCEPTIONS, f"{path}: {name} {FORBIDDEN[name]}"
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            assert isinstance(node.value, ast.Constant) and node.value.value is False, (
                f"{path}:{node.value.lineno}: {node.arg}"
            )


#: parts that may touch files, and single modules with their reason
FILES = {"model", "cli", "study"}
FILE_MODULES = {
    "config.py": "reads the site file",
    "ledger/key_file.py": "private keys, mode 0600",
    "ledger/sqlite_file.py": "the durable store",
    "swarm/shelf.py": "the model in force, the next one, and their statistics",
    "swarm/referee.py": "certified models that were the best",
    "swarm/checkup.py": "reads the card",
    "swarm/door.py": "finds its folder where the path is too long for a socket",
    "swarm/room.py": "asks the kernel about memory and CPU",
    "secure/journal_file.py": "decisions that must survive a restart",
    "merge/outer.py": "the optimisers' state file",
    "merge/custom.py": "reads the user's own rule file",
}


@pytest.mark.parametrize("path", [p for p in MODULES if p.suffix == ".py"], ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_are_touched_in_few_places(path: Path) -> None:
    relative = path.relative_to(SOURCE)
    if relative.parts[0] in FILES or str(relative) in FILE_MODULES:
        return
    calls = {dotted(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
    touched = {
        c
        for c in calls
        if c in ("open", "os.open", "os.replace", "os.rename")
        or c.endswith((".read_bytes", ".write_text", ".read_text", ".write_bytes"))
    }
    assert not touched, f"{relative} touches the outside: {sorted(touched)}"


#: modules that may touch sockets: who sends and hears does it through a `Transport`
SOCKET_MODULES = {
    "swarm/gate.py",
    "swarm/connections.py",
    "swarm/frames.py",
    "swarm/plane.py",
    "swarm/control_plane.py",
    "swarm/bulk_plane.py",
    "swarm/curve_transport.py",
    "swarm/door.py",
    "swarm/checkup.py",  # asks for the version of libzmq
    "study/hospitals.py",
}


@pytest.mark.parametrize("path", [p for p in MODULES if p.suffix == ".py"], ids=lambda p: str(p.relative_to(SOURCE)))
def test_sockets_are_touched_in_the_transport_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    found = names & {"socket", "socketserver", "ssl", "asyncio", "http", "urllib", "zmq"}
    assert not found or str(path.relative_to(SOURCE)) in SOCKET_MODULES, f"{path}: {sorted(found)}"


def test_front_door_is_small_and_documented() -> None:
    import shoal

    assert len(shoal.__all__) <= 20
    for name in shoal.__all__:
        if name != "__version__":
            assert getattr(shoal, name).__doc__, f"shoal.{name} has no docstring"


def test_constraints_pin_every_requirement() -> None:
    import re
    import tomllib

    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for name, extra in project["optional-dependencies"].items():
        wanted += [r for r in extra if name != "gpu"]
    names = {re.match(r"[A-Za-z0-9_.-]+", r).group().lower().replace("_", "-") for r in wanted}  # type: ignore[union-attr]
    assert names - {"shoal"} <= pinned


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by their bare names: two of one name cannot be collected together."""
    names = [p.name for p in (ROOT / "tests").rglob("*.py") if p.name != "conftest.py"]
    assert sorted(names) == sorted(set(names)), sorted({n for n in names if names.count(n) > 1})
