"""The application of typer."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="spine-async",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - a callback of typer
    if value:
        from spine_async import __version__

        typer.echo(f"spine-async {__version__}")
        raise typer.Exit


@app.callback()
def spine_async(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Start, watch and operate durable workflows.

    Exit codes: 0 completed, 1 failed, 2 wrong usage, 3 stopped.
    """
