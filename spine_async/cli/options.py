"""The options and arguments that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="Database of the runs; by default SPINE_DATABASE_URL, or .spine/runs.db in the working directory.",
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="MODULE[:ATTRIBUTE]", envvar="SPINE_APP", help="Module of the workflows, such as myapp.flows."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of the run.")]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN_ID...", help="Ids of the runs.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print tracebacks of failed steps.")]
ParamsJson = Annotated[
    str | None,
    typer.Option(
        "--params", metavar="JSON", help="Params as a JSON object; @FILE reads a file, @- the standard input."
    ),
]
ParamEntries = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="One param; a value that is not JSON is a text."),
]
