"""shoal diff and shoal apply: two models to a small update file, and update files to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.merge import HOW, WHICH, expected_bytes, parse_weights
from shoal.cli.progress import bar
from shoal.cli.show import Format, line, print_json, size
from shoal.errors import shown

if TYPE_CHECKING:
    from shoal.diff.apply import ApplyReport
    from shoal.diff.make import DiffReport
    from shoal.diff.update_format import Signer

#: what `shoal diff` takes if nothing is said: an error of 4e-5, a quarter of the size
BITS = 8

Threads = Annotated[
    int, typer.Option("--threads", min=0, help="0: all cores, or SHOAL_THREADS.", rich_help_panel=HOW)
]  # fmt: skip
As = Annotated[Format, typer.Option("--format", help="text or json.", rich_help_panel=HOW)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.", rich_help_panel=HOW)]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="File to write.", show_default=False, readable=False)
]  # fmt: skip
Base = Annotated[
    Path, typer.Argument(help="Model that the training started from (ONNX).", show_default=False, readable=False)
]  # fmt: skip


def diff(
    base: Base,
    new: Annotated[Path, typer.Argument(help="The model after training.", show_default=False, readable=False)],
    output: Output = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", "-b", help=f"Bits per number: 1, 2, 3, 4, 8, 16 or 32. (default: {BITS})"),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option("--codec", help="A codec by name: eden-1 ... eden-8, int4, int8, float16, bfloat16, float32."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", help="Samples that NEW was trained on: its weight in a mean."),
    ] = None,
    sign: Annotated[Path | None, typer.Option("--sign", help="Private key file to sign with.", readable=False)] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Only tensors that match GLOB; repeatable.", rich_help_panel=WHICH),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Leave tensors alone that match GLOB; repeatable.", rich_help_panel=WHICH),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of the rotation, for a file that can be made again.", rich_help_panel=HOW),
    ] = None,
    threads: Threads = 0,
    format: As = Format.text,
    quiet: Quiet = False,
) -> None:
    """Write what leads from BASE to NEW as a small update file.

    Integers and the graph must be equal in both models; what --exclude names stays as everybody has it.
    """
    if output is None:
        raise typer.BadParameter("say where to write: -o UPDATE.shoal")
    if bits is not None and codec is not None:
        raise typer.BadParameter("--bits and --codec say the same thing; give one of them")
    from shoal.diff.codec import of_bits
    from shoal.diff.make import DiffOptions, make_update

    chosen = codec if codec is not None else of_bits(BITS if bits is None else bits).name
    signer = None if sign is None else _signer(sign)
    with bar("reading two models", expected_bytes([base, new]), quiet or format is Format.json) as progress:
        options = DiffOptions(
            codec=chosen,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            samples=samples,
            seed=seed,
            signer=signer,
            threads=threads,
            progress=progress,
        )
        report = make_update(base, new, output, options)
    if format is Format.json:
        print_json(report.as_dict())
    elif not quiet:
        line(diff_summary(report))


def apply(
    base: Base,
    updates: Annotated[
        list[Path], typer.Argument(help="Update files made from BASE.", show_default=False, readable=False)
    ],
    output: Output = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="One number per update. (default: their samples, if all tell them)"),
    ] = None,
    threads: Threads = 0,
    format: As = Format.text,
    quiet: Quiet = False,
) -> None:
    """Write BASE plus the weighted mean of the updates.

    Updates that were made from another base, that are damaged, or whose signature does not hold, are refused.
    """
    if output is None:
        raise typer.BadParameter("say where to write: -o OUT.onnx")
    from shoal.diff.apply import ApplyOptions, apply_updates

    given = None if weights is None else parse_weights(weights)
    with bar(f"applying {len(updates)} updates", expected_bytes([base]), quiet or format is Format.json) as progress:
        options = ApplyOptions(weights=given, check=_signature_holds, threads=threads, progress=progress)
        report = apply_updates(base, updates, output, options)
    if format is Format.json:
        print_json(report.as_dict())
    elif not quiet:
        line(apply_summary(report))


def _signature_holds(public: bytes, signature: bytes, message: bytes) -> bool:
    """The ledger's rule; its cryptography is loaded only for files that are signed."""
    from shoal.ledger.identity import signature_holds

    return signature_holds(public, signature, message)


def _signer(path: Path) -> Signer:
    from shoal.diff.update_format import Signer
    from shoal.ledger.key_file import read_key_file

    identity = read_key_file(path)
    return Signer(identity.public, identity.sign)


def diff_summary(report: DiffReport) -> str:
    """What a diff did, in one line."""
    local = f", {report.tensors_local} kept local" if report.tensors_local else ""
    rate = 2 * report.model_bytes / max(report.seconds, 1e-9) / 1e9
    return (
        f"{report.codec}: {report.tensors} tensors, {report.numbers:,} numbers{local}; {size(report.file_bytes)}, "
        f"{report.file_bytes / max(report.model_bytes, 1):.2%} of their {size(report.model_bytes)}; "
        f"{report.seconds:.2f} s ({rate:.1f} GB/s), base {report.base_digest[:16]} -> {shown(report.output, 1000)}"
    )


def apply_summary(report: ApplyReport) -> str:
    """What an apply did, in one line."""
    how = {"weights": "by the weights given", "samples": "by samples", "equal": "all the same"}[report.weighted_by]
    count = len(report.updates)
    mean = f"mean of {count} updates, {how}" if count > 1 else "1 update"
    return (
        f"{mean}: {report.tensors} tensors, {report.numbers:,} numbers, {report.tensors_kept} passed on; "
        f"{report.seconds:.2f} s, digest {report.digest[:16]} -> {shown(report.output, 1000)}"
    )
