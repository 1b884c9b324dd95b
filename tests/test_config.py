"""The site file: every setting is read, and what cannot be meant is refused by name and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal.config import Metrics, Peer, Site, Times, read_site
from shoal.errors import InputError, MachineError
from shoal.limits import SITE_FILE_BYTES_MAX

FULL = """\
name = "north"
identity = "keys/id.pem"
curve = "/abs/curve.pem"
card = "north.card"
data = "state"
listen = "tcp://[::1]:7800"
genesis = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
exclude = ["head.*"]

[[peers]]
card = "south.card"
address = "tcp://10.0.0.2:7700"

[[peers]]
card = "east.card"

[metrics]
listen = "127.0.0.1:9100"

[times]
tick_ms = 50
election_ms = 500
progress_timeout_s = 5
straggler_grace_s = 2.5
submit_wait_s = 60
"""


def put(folder: Path, text: str | bytes) -> Path:
    path = folder / "site.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_setting(tmp_path: Path) -> None:
    site = read_site(put(tmp_path, FULL))
    at = str(tmp_path)
    assert site == Site(
        "north",
        f"{at}/keys/id.pem",
        "/abs/curve.pem",
        f"{at}/north.card",
        f"{at}/state",
        "tcp://[::1]:7800",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        ("head.*",),
        (Peer(f"{at}/south.card", "tcp://10.0.0.2:7700"), Peer(f"{at}/east.card")),
        Times(50, 500, 5.0, 2.5, 60.0),
        Metrics("127.0.0.1:9100"),
    )


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 'name = "a"')
    monkeypatch.chdir(tmp_path.parent)
    site = read_site(Path(tmp_path.name) / "site.toml")
    assert (site.identity, site.card, site.data) == tuple(f"{tmp_path}/{n}" for n in ("identity.pem", "a.card", "data"))
    assert site.times == Times() and site.times.election_ms <= 1000
    assert len(Times.__struct_fields__) == 5


def test_each_setting_is_documented() -> None:
    for kind in (Site, Times, Peer):
        for name in kind.__struct_fields__:
            assert any(line.split()[:1] == [name] for line in (kind.__doc__ or "").splitlines()), name


REFUSED = {
    'name = "a"\ntick_msec = 5': "line 2: unknown setting 'tick_msec'; known are name,",
    'name = "a"\n\n[times]\ntick-ms = 5': "line 4: unknown setting 'tick-ms'; it is written tick_ms",
    'name = "a"\nGenesis = ""': "line 2: unknown setting 'Genesis'; it is written genesis",
    'name = "a"\n[[peers]]\ncard = "x"\ncurve = "y"': "line 4: unknown setting 'curve'; known are card, address",
    'name = "a"\nname = "b"': "no TOML: Cannot overwrite a value",
    'name = "a"\n[times]\ntick_ms = "fast"': "line 3: tick_ms: expected `int`, got `str`",
    'name = "a"\n[times]\ntick_ms = 1': "line 3: tick_ms: expected `int` >= 10",
    'name = "a"\n[times]\ntick_ms = 100\nelection_ms = 300': "line 4: election_ms: 300, expected at least 5 ticks of 100",
    'name = "a"\n[times]\nsubmit_wait_s = nan': "submit_wait_s",
    'name = "a"\n[times]\nsubmit_wait_s = inf': "submit_wait_s",
    'name = "a"\nexclude = "head"': "line 2: exclude: expected `array`",
    'name = "a"\ngenesis = "00"': "line 2: genesis: expected `str` matching",
    'name = "a b"': "line 1: name: expected `str` matching",
    'name = "../a"': "line 1: name: expected `str` matching",
    'name = "a\\n"': "name: expected `str` matching",
    'name = "a"\nlisten = "udp://x:1"': "line 2: listen: 'udp://x:1' is no address to listen at",
    'name = "a"\nlisten = "tcp://*:65535"': "no address to listen at",
    'name = "a"\n[[peers]]\ncard = "x"\naddress = "tcp://*:7700"': "line 4: address: 'tcp://*:7700' is an address to listen",
    'name = "a"\n[[peers]]\ncard = "x"\n[[peers]]\ncard = "x"': "line 2: peers: a card is named twice",
    'name = "a"\n[[peers]]\naddress = ""': "lacks the setting `card`",
    'name = "a"\ncurve = "identity.pem"': "line 2: curve: the same file as identity",
    'name = "a"\npeers = 5': "line 2: peers: expected `array`",
    'name = "a"\nidentity = "a\\u0000b"': "line 2: identity: expected `str` matching",
    "": "lacks the setting `name`",
    "[": "no TOML",
    "a = " + "[" * 5000: "no TOML",
    b"\xff": "no UTF-8 at byte 0",
    "# " + "x" * SITE_FILE_BYTES_MAX: f"more than {SITE_FILE_BYTES_MAX} bytes",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_meant_is_refused_by_name_and_line(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_site(put(tmp_path, text))
    message = str(caught.value)
    assert REFUSED[text] in message, message
    assert message.isprintable() and message.startswith(str(tmp_path)) and len(message) < 1000


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_site(tmp_path / "none.toml")
    with pytest.raises(InputError, match="no regular file"):
        read_site(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        read_site(tmp_path / "pipe")
    with pytest.raises(MachineError, match="no path"):
        read_site(Path("a\0b"))
