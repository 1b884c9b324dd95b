"""What a slot must be for anybody to take part in it."""

from __future__ import annotations

import msgspec
import pytest
from slot_table import SlotTable

from shoal.errors import ArgumentError, PeerError

TABLE = SlotTable(5)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"swarm": b"s" * 31}, "slot.name"),
        ({"rid": b""}, "slot.name"),
        ({"slot": -1}, "slot.name"),
        ({"slot": 2**63}, "slot.name"),
        ({"epoch": -1}, "slot.name"),
        ({"epoch": 2**63}, "slot.name"),
    ],
)
def test_names_that_cannot_be_are_refused(fields: dict[str, object], code: str) -> None:
    name = msgspec.structs.replace(TABLE.name, **fields)
    with pytest.raises(ArgumentError) as raised:
        msgspec.structs.replace(TABLE.slot, name=name).check()
    assert raised.value.code == code
    TABLE.slot.check()


def test_participants_that_cannot_be_are_refused() -> None:
    parties = TABLE.slot.parties
    short = msgspec.structs.replace(parties[0], id=b"")
    for wrong in (parties[::-1], (parties[0], *parties[:4]), (short, *parties[1:])):
        with pytest.raises(ArgumentError) as raised:
            msgspec.structs.replace(TABLE.slot, parties=wrong).check()
        assert raised.value.code == "slot.parties"


def test_a_key_of_one_kind_cannot_be_anybodys_of_the_other() -> None:
    parties = TABLE.slot.parties
    for change in ({"one_time": parties[1].epoch}, {"epoch": parties[1].one_time}, {"epoch": parties[0].one_time}):
        slot = msgspec.structs.replace(
            TABLE.slot, parties=(msgspec.structs.replace(parties[0], **change), *parties[1:])
        )
        with pytest.raises(PeerError) as raised:
            slot.check()
        assert raised.value.code == "key.repeated"


def test_groups() -> None:
    slot = TABLE.slot
    assert slot.floor == 4 and slot.group(reversed(TABLE.ids)) == frozenset(TABLE.ids)
    assert [slot.position(i) for i in TABLE.ids] == [0, 1, 2, 3, 4]
    for wrong, code in ((TABLE.ids[:3], "slot.floor"), ([*TABLE.ids, TABLE.ids[0]], "slot.stranger"),
                        ([*TABLE.ids[:4], b"x"], "slot.stranger"), ([], "slot.floor")):  # fmt: skip
        with pytest.raises(PeerError) as raised:
            slot.group(wrong)
        assert raised.value.code == code
