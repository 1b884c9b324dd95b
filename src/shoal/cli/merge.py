"""shoal merge: files in, one file out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from shoal.cli.progress import bar
from shoal.cli.show import Format, line, print_json, size
from shoal.cli.wish import Wish, require_dtype, wished
from shoal.errors import ArgumentError, shown

if TYPE_CHECKING:
    from shoal.merge.options import MergeOptions
    from shoal.merge.report import Report

#: help headings
RULE, WHICH, HOW = "Rule and its parameters", "Which tensors", "How"


def merge(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="ONNX files of one architecture, or one recipe (.yml).", show_default=False, readable=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write.", show_default=False, readable=False)
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="YAML recipe in mergekit's words.", readable=False)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Rule: see `shoal rules`. (default: mean)", rich_help_panel=RULE),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", help="One number per model: 812,240,1504.", rich_help_panel=RULE)
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", help="Model that all were trained from.", rich_help_panel=RULE, readable=False),
    ] = None,
    outer: Annotated[
        str | None,
        typer.Option(
            "--outer", help="Step from the base: sgd, momentum, nesterov, adam, yogi, adagrad.", rich_help_panel=RULE
        ),
    ] = None,
    outer_state: Annotated[
        Path | None,
        typer.Option("--outer-state", help="Its memory: read if there, written.", rich_help_panel=RULE, readable=False),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="Any parameter: NAME=VALUE; repeatable.", rich_help_panel=RULE),
    ] = None,
    beta: Annotated[
        str | None, typer.Option("--beta", help="trimmed-mean: share cut at each end.", rich_help_panel=RULE)
    ] = None,
    density: Annotated[
        str | None,
        typer.Option(
            "--density", help="ties, dare: share that is kept; one for all, or one per model.", rich_help_panel=RULE
        ),
    ] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", help="dare: of the random choice.", rich_help_panel=RULE)
    ] = None,
    t: Annotated[str | None, typer.Option("--t", help="slerp: 0 first model, 1 second.", rich_help_panel=RULE)] = None,
    scaling: Annotated[
        str | None, typer.Option("--scaling", help="task-arithmetic, ties, dare: lambda.", rich_help_panel=RULE)
    ] = None,
    num_malicious_nodes: Annotated[
        str | None,
        typer.Option("--num-malicious-nodes", help="krum, bulyan: how many may be bad.", rich_help_panel=RULE),
    ] = None,
    num_nodes_to_select: Annotated[
        str | None, typer.Option("--num-nodes-to-select", help="multi-krum: how many enter.", rich_help_panel=RULE)
    ] = None,
    rule_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--rule-file",
            help="Python file with rules of your own (it is run).",
            rich_help_panel=RULE,
            readable=False,
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Merge only tensors that match GLOB; repeatable.", rich_help_panel=WHICH),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", help="Keep the first model's value where GLOB matches; repeatable.", rich_help_panel=WHICH
        ),
    ] = None,
    integers: Annotated[
        str | None,
        typer.Option(
            "--integers", help="Whole numbers that differ: require-equal, first or max.", rich_help_panel=WHICH
        ),
    ] = None,
    nonfinite: Annotated[
        str, typer.Option("--nonfinite", help="NaN and Inf: refuse or allow.", rich_help_panel=WHICH)
    ] = "refuse",
    quantised: Annotated[
        str,
        typer.Option(
            "--quantised",
            "--quantized",
            help="Quantised weights that differ: refuse, or merge the numbers they stand for.",
            rich_help_panel=WHICH,
        ),
    ] = "refuse",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.", rich_help_panel=HOW)] = "cpu",
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="0: all cores, or SHOAL_THREADS.", rich_help_panel=HOW)
    ] = 0,
    format: Annotated[Format, typer.Option("--format", help="text or json.", rich_help_panel=HOW)] = Format.text,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.", rich_help_panel=HOW)] = False,
) -> None:
    """Merge models of one architecture into one file of the same graph.

    A recipe gives the same in a file; what is said on the command line wins over it.
    """
    if output is None:
        raise typer.BadParameter("say where to write: -o OUT.onnx")
    named = {
        "beta": beta,
        "density": density,
        "seed": seed,
        "t": t,
        "scaling": scaling,
        "num_malicious_nodes": num_malicious_nodes,
        "num_nodes_to_select": num_nodes_to_select,
    }
    wish = wished(list(models or []), recipe)
    wish.method = method or wish.method
    wish.weights = wish.weights if weights is None else parse_weights(weights)
    wish.base, wish.outer = base or wish.base, outer or wish.outer
    given = {k: v for k, v in named.items() if v is not None} | parse_parameters(param or [])
    wish.overrule(weights is not None, given)
    wish.include, wish.exclude = tuple(include or wish.include), tuple(exclude or wish.exclude)
    wish.integers = integers or wish.integers
    own = load_rule_files(rule_file or [])
    if method is None and wish.method == "mean" and own:
        wish.method = _only(own)
    _check_device(device)
    from shoal.merge.options import MergeOptions

    options = MergeOptions(
        weights=wish.weights,
        method=wish.method,
        outer=wish.outer,
        include=wish.include,
        exclude=wish.exclude,
        integers=cast(Any, wish.integers or "require-equal"),
        nonfinite=cast(Any, nonfinite),
        threads=threads,
        parameters=wish.parameters,
        quantised=cast(Any, quantised),
        by_name=wish.by_name,
        device=device,
    )
    if wish.dtype is not None:
        require_dtype(wish.models[0], wish.dtype, options)
    report = _merge_wish(wish, output, options, outer_state, quiet or format is Format.json)
    if format is Format.json:
        print_json(report.as_dict())
    elif not quiet:
        line(summary(report))


def _merge_wish(wish: Wish, output: Path, options: MergeOptions, state: Path | None, quiet: bool) -> Report:
    from shoal.merge.files import merge_files
    from shoal.merge.rules import find

    expected = expected_bytes(wish.models) * find(options.method).passes
    with bar(f"merging {len(wish.models)} models", expected, quiet) as progress:
        return merge_files(wish.models, output, replace(options, progress=progress), base=wish.base, outer_state=state)


def parse_weights(text: str) -> tuple[float, ...]:
    """ "812,240,1504" -> numbers.

    raises  ArgumentError("merge.weights")  if a part is no number (their range and count are the engine's to check)
    """
    found = []
    for part in text.split(","):
        try:
            # Python's float() also takes 1_000 and digits of other scripts: more likely a slip than a wish.
            found.append(float(part if part.isascii() and "_" not in part else ""))
        except ValueError:
            raise ArgumentError(
                "merge.weights", f"--weights: found '{shown(part)}'; expected numbers separated by commas"
            ) from None
    return tuple(found)


def parse_parameters(words: list[str]) -> dict[str, object]:
    """["beta=0.1"] -> {"beta": "0.1"}; "-" in a name is "_"."""
    found: dict[str, object] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise ArgumentError("rule.parameter", f"--param: found '{shown(word)}'; expected NAME=VALUE")
        found[name.strip().replace("-", "_")] = value.strip()
    return found


def load_rule_files(paths: list[Path]) -> tuple[str, ...]:
    """Run the user's own files; returns the names of the rules that they registered."""
    if not paths:
        return ()
    from shoal.merge.custom import load_rule_file

    return tuple(name for path in paths for name in load_rule_file(path))


def _only(own: tuple[str, ...]) -> str:
    """A rule file with one rule and no --method means that rule."""
    if len(own) > 1:
        raise ArgumentError("rule.file", f"the rule file has the rules {', '.join(own)}; say which (--method)")
    return own[0]


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise ArgumentError("device.unknown", f"--device is '{shown(device)}'; expected cpu or cuda")
    if device != "cpu":
        from shoal.kernels.device import require

        require(device)


def expected_bytes(models: list[Path]) -> int:
    """Bytes of the files by their names alone; the engine says later what it reads."""
    total = 0
    for path in models:
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def summary(report: Report) -> str:
    """What a merge did, in one line."""
    rule = report.rule if report.outer is None else f"{report.rule}, {report.outer}"
    rest = {"passed on": report.tensors_passed, "kept local": report.tensors_local}
    others = "".join(f", {count} {what}" for what, count in rest.items() if count)
    chosen = report.notes.get("chosen")
    if chosen is not None and len(chosen) < len(report.models):
        others += f"; chosen: {', '.join(shown(report.models[i]) for i in chosen)}"
    rate = report.bytes_read / max(report.seconds, 1e-9) / 1e9
    return (
        f"merged {len(report.models)} models by {rule}: {report.tensors_merged} tensors, {report.numbers:,} parameters"
        f"{others}; {size(report.bytes_read)} in {report.seconds:.2f} s ({rate:.1f} GB/s), "
        f"digest {report.digest[:16]} -> {shown(report.output, 1000)}"
    )
