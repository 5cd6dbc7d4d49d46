"""What the forms do: stop, resume, fork and signal runs; pause, resume and trigger schedules."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import Response

from spine_async.dashboard.forms import FormError, json_field, object_field, read_form, text_field
from spine_async.dashboard.security import check_same_origin
from spine_async.dashboard.site import Visit


async def stop(visit: Visit) -> Response:
    """Stop a run."""
    form = await _form(visit)
    run_id = _required(form, "id")
    was_under_way = await visit.runner.stop(
        run_id, text_field(form, "reason"), compensate=form.get("compensate") == "yes"
    )
    return visit.redirect("/run", id=run_id, notice="stopping" if was_under_way else "not-under-way")


async def resume(visit: Visit) -> Response:
    """Continue a run in this process."""
    form = await _form(visit)
    run_id = _required(form, "id")
    await visit.runner.resume_in_background(run_id, params_override=object_field(form, "params"))
    return visit.redirect("/run", id=run_id, notice="resumed")


async def fork(visit: Visit) -> Response:
    """Start a new run with the finished steps of another one."""
    form = await _form(visit)
    handle = await visit.runner.fork(
        _required(form, "id"),
        _required(form, "path"),
        params=object_field(form, "params"),
        outputs=object_field(form, "outputs"),
        new_run_id=text_field(form, "new_id"),
    )
    return visit.redirect("/run", id=handle.run_id, notice="forked")


async def signal(visit: Visit) -> Response:
    """Send a signal to a run. An empty field sends null."""
    form = await _form(visit)
    run_id = _required(form, "id")
    await visit.runner.signal(run_id, _required(form, "name"), json_field(form, "value"))
    return visit.redirect("/run", id=run_id, notice="signalled")


async def pause_schedule(visit: Visit) -> Response:
    """Let a schedule start no runs."""
    await visit.runner.pause_schedule(_required(await _form(visit), "name"))
    return visit.redirect("/schedules", notice="paused")


async def resume_schedule(visit: Visit) -> Response:
    """Let a paused schedule start runs again."""
    await visit.runner.resume_schedule(_required(await _form(visit), "name"))
    return visit.redirect("/schedules", notice="unpaused")


async def trigger_schedule(visit: Visit) -> Response:
    """Start a run of a schedule now."""
    handle = await visit.runner.trigger_schedule(_required(await _form(visit), "name"))
    return visit.redirect("/run", id=handle.run_id, notice="triggered")


async def _form(visit: Visit) -> Mapping[str, str]:
    """The form of a visitor who may act.

    Raises:
        HTTPException: The visitor may not, or the form comes from another site.
    """
    check_same_origin(visit.request)
    if not visit.permission.may_act:
        raise HTTPException(403, "You may look at this dashboard, but not change anything.")
    return await read_form(visit.request)


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value.strip():
        raise FormError(f"{name} is empty; fill it in")
    return value
