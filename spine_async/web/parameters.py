"""What requests contain: queries and JSON bodies."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import from_json

MAX_WAIT = 60
"""Seconds that a request may wait for the end of a run; proxies close connections that are silent for longer."""

MAX_PAGE = 1000
_MAX_SEQ = 10**15 - 1
_MAX_PRIORITY = 2**31 - 1
_MAX_DELAY = 10_000_000_000

StatusName = Literal["pending", "running", "waiting", "completed", "failed", "stopped"]


def _time(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("not a time, such as 2026-01-31T12:00:00Z; write + as %2B") from None
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone; append Z for UTC")
    return moment


def _flag(value: object) -> bool:
    if value not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return value == "true"


def _object(value: object) -> dict[str, Any]:
    try:
        found = from_json(str(value), allow_inf_nan=False)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError('not a JSON object, such as {"region":"EU"}')  # noqa: TRY004 - pydantic needs a ValueError
    return found


Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Flag = Annotated[bool, BeforeValidator(_flag)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_object)]
Seconds = Annotated[float, Field(ge=0, le=MAX_WAIT, allow_inf_nan=False)]


# --- queries ----------------------------------------------------------------------------------------------------------


class NoQuery(BaseModel):
    """A request without a query."""


class WaitQuery(BaseModel):
    """How long a request waits."""

    wait: Seconds | None = Field(None, description="Seconds to wait for the end of the run.")


class StartQuery(WaitQuery):
    """How a run is started."""

    queue: str | None = Field(
        None, min_length=1, description="Queue for any working process; without it this process executes the run."
    )
    key: str | None = Field(None, min_length=1, description="Key of the run within its queue, such as the tenant.")
    priority: int | None = Field(
        None, ge=-_MAX_PRIORITY, le=_MAX_PRIORITY, description="Runs of a queue with a lower number come first."
    )
    delay: float | None = Field(
        None, ge=0, le=_MAX_DELAY, allow_inf_nan=False, description="Seconds before which the run does not begin."
    )


class EventsQuery(BaseModel):
    """Which events are sent."""

    after: int = Field(0, ge=0, le=_MAX_SEQ, description="Only events with a greater number; as `Last-Event-ID`.")
    limit: int = Field(MAX_PAGE, ge=1, le=MAX_PAGE, description="Maximum number of events of a JSON document.")


class RunsQuery(BaseModel):
    """Which runs are listed."""

    model_config = ConfigDict(extra="forbid")

    workflow_name: str | None = Field(None, description="Name of the workflow.")
    status: StatusName | None = Field(None, description="Status of the run.")
    queue: str | None = Field(None, description="Queue of the run.")
    key: str | None = Field(None, description="Key of the run within its queue.")
    partition: JsonObject | None = Field(
        None, description="Entries of the partition of the run, as a JSON object; it may have others too."
    )
    parent_run_id: str | None = Field(None, description="Run whose step started the run.")
    stop_reason: str | None = Field(None, description="Reason for which the run was stopped.")
    error_category: str | None = Field(None, description="Category of the error of the run.")
    created_after: Time | None = Field(None, description="The run was created then or later.")
    created_before: Time | None = Field(None, description="The run was created earlier.")
    ended_after: Time | None = Field(None, description="The run ended then or later.")
    ended_before: Time | None = Field(None, description="The run ended earlier.")
    run_id_prefix: str | None = Field(None, description="Text with which the run id begins.")
    order: Literal["newest", "oldest"] = Field("newest", description="Which runs come first.")
    with_params: Flag = Field(default=False, description="Whether the runs contain their params.")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="Maximum number of runs.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before.")


# --- bodies -----------------------------------------------------------------------------------------------------------


class Body(BaseModel):
    """A JSON object without unknown members."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StartBody(Body):
    """A run to start."""

    params: dict[str, Any] = Field(default_factory=dict, description="Params of the run.")
    partition: dict[str, Any] | None = Field(None, description="Partition of the run.")


class SignalBody(Body):
    """A signal."""

    value: Any = Field(None, description="Value of the signal.")


class StopBody(Body):
    """How a run is stopped."""

    reason: str | None = Field(None, max_length=1000, description="Reason to record.")
    compensate: bool = Field(default=False, description="Whether the finished steps are compensated.")


class ResumeBody(Body):
    """How a run continues."""

    params: dict[str, Any] | None = Field(None, description="Params that change from now on.")
