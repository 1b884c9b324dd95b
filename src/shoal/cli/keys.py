"""shoal keys: a site's own keys, its public card and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli import put
from shoal.cli.show import Format, line, print_json
from shoal.errors import MachineError, shown

_SETTINGS = """\
# Settings of this site of a Shoal swarm.  Paths are relative to this file.  docs/FORMAT.md lists them all.
name = "{name}"
identity = "identity.pem"    # private: never leaves this machine
curve = "curve.pem"          # private: never leaves this machine
card = "{name}.card"         # public: send it to the others
data = "data"                # the ledger, and all that must survive a restart
listen = "{listen}"{space}# the port after it is needed, too; "" listens nowhere
# genesis = ""               # the digest that `shoal init` prints: then no other swarm's ledger is taken
# exclude = ["head.*"]       # tensors that stay at this site; the same at every site
"""


def keys(
    folder: Annotated[Path, typer.Argument(help="Folder of this site; made if it is not there.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="What the others call this site: letters, digits, . _ -")],
    address: Annotated[
        str, typer.Option("--address", help="Where others dial this site: tcp://host:port. Empty: nowhere.")
    ] = "",
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Make this site's keys (mode 0600), its public card and its settings. Nothing that is there is replaced.

    The private keys never leave this machine, and are never shown. Send the card to the other members, and read them
    its fingerprint over the telephone.
    """
    from shoal.ledger.curve_key import CurveKey
    from shoal.ledger.identity import Identity, member_id
    from shoal.swarm.card import make_card, write_card
    from shoal.swarm.site_keys import create_pair

    make_card(name, address, Identity.generate(), CurveKey.generate())  # refuses a bad name before anything is made
    card_file, settings = folder / f"{name}.card", folder / "site.toml"
    put.folder(folder)
    for path in (card_file, settings):
        if path.exists() or path.is_symlink():
            raise MachineError("key.exists", f"{shown(str(path))}: exists already; nothing is replaced")
    identity, curve = create_pair(folder / "identity.pem", folder / "curve.pem")
    card = make_card(name, address, identity, curve)
    put.create(card_file, write_card(card))
    port = address.rpartition(":")[2] if address else ""
    listen = f"tcp://*:{port}" if port else ""
    put.create(settings, _SETTINGS.format(name=name, listen=listen, space=" " * max(1, 19 - len(listen))))
    made = {"card": str(card_file), "settings": str(settings), "id": member_id(identity.public).hex()}
    if format is Format.json:
        print_json({"name": name, **made, "fingerprint": card.fingerprint})
        return
    line(f"card         {shown(str(card_file))}: send it to the other members")
    line(f"settings     {shown(str(settings))}")
    line(f"fingerprint  {card.fingerprint}: read it to them over the telephone")
