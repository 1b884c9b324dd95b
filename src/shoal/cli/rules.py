"""shoal rules: every way to merge, with its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli.show import Format, print_json, table


def rules(
    rule_file: Annotated[
        list[Path] | None, typer.Option("--rule-file", help="Python file with rules of your own, listed too.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """List the rules of merging and the outer optimisers: parameters, defaults, source."""
    from shoal.merge.outer import OUTERS
    from shoal.merge.rules import rules as all_rules

    if rule_file:
        from shoal.cli.merge import load_rule_files

        load_rule_files(rule_file)
    found = [_row(rule) for rule in all_rules()]
    outer = [_row(kind) for kind in OUTERS]
    if format is Format.json:
        print_json({"rules": found, "outer": outer})
        return
    columns = [("rule", "left"), ("what it does", "left"), ("parameters (default)", "left"), ("source", "left")]
    table(columns, [_cells(row) for row in found], "rules: shoal merge --method RULE")
    columns[0] = ("optimiser", "left")
    table(columns, [_cells(row) for row in outer], "outer optimisers: shoal merge --base BASE.onnx --outer OPTIMISER")


def _row(rule: Any) -> dict[str, Any]:
    return {
        "name": rule.name,
        "aliases": list(getattr(rule, "aliases", ())),
        "summary": rule.summary,
        "source": getattr(rule, "source", ""),
        "weights": getattr(rule, "weights", None),
        "needs_base": getattr(rule, "needs_base", True),
        "parameters": [
            {
                "name": p.name,
                "kind": p.kind.__name__,
                "default": p.default,
                "low": p.low,
                "high": p.high,
                "low_allowed": not p.above,
                "doc": p.doc,
            }
            for p in rule.parameters
        ],
    }


def _cells(row: dict[str, Any]) -> list[str]:
    listed = [
        f"{p['name']} ({'worked out' if p['default'] is None else format(p['default'], 'g')})"
        for p in row["parameters"]
    ]
    what = row["summary"] + (" (needs --base)" if row["needs_base"] and row["weights"] is not None else "")
    return [
        ", ".join([row["name"], *row["aliases"]]),
        what,
        ", ".join(listed) or "-",
        row["source"] or "Reddi et al. 2021; Hsu et al. 2019",
    ]
