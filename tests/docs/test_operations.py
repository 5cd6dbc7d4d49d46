"""The privileges that `docs/operations.md` lists are sufficient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from spine_async import Step, Workflow, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import upgrade_schema

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
LEFT = " + ".join(f"(SELECT count(*) FROM core_workflow_{table})" for table in ("steps", "event_log", "inbox"))


@pytest.fixture
def admin(fresh_postgres_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser's connection to an empty database."""
    with psycopg.connect(fresh_postgres_url.replace("+asyncpg", ""), autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(admin: psycopg.Connection[tuple[object, ...]]) -> Iterator[str]:
    """A role that may log in, and has no other privileges."""
    name = f"role_{uuid4().hex[:12]}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name)))
    yield name
    admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.mark.anyio
async def test_a_user_with_the_listed_privileges_can_run_and_delete(
    fresh_postgres_url: str, admin: psycopg.Connection[tuple[object, ...]], role: str
) -> None:
    await upgrade_schema(fresh_postgres_url)
    block = next(each for each in re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL) if "GRANT" in each)
    admin.execute(block.replace("TO app;", f"TO {role};").encode())
    url = make_url(fresh_postgres_url).set(username=role, password="secret").render_as_string(hide_password=False)
    steps = [
        Step.lambda_("fail_once", lambda context, config: {"share": 1 / int(str(context.params["divisor"]))}),
        Step.map("each", items=[1, 2, 3], iterator=lambda context, config: {}),
        Step.wait_for_signal("answer"),
    ]
    workflow = Workflow("granted", steps)
    config = WorkflowRunnerConfig(database_url=url, auto_migrate=False, park_after=0)
    async with WorkflowRunner(config=config, workflows=[workflow]) as runner:
        parked = await runner.enqueue(workflow, params={"divisor": 1})
        with anyio.fail_after(10):
            while (await parked.record()).status != "waiting":  # noqa: ASYNC110 (another task parks it)
                await anyio.sleep(0.01)
        await parked.signal("answer", 42)
        assert (await parked.result(timeout=20)).status == "completed"
        await runner.delete_run(parked.run_id)
        assert (await runner.execute(workflow, params={"divisor": 0}, run_id="r1")).status == "failed"
        await runner.signal("r1", "answer", 42)
        assert (await runner.resume("r1", params_override={"divisor": 1})).status == "completed"
        await runner.stop("r1")
        assert await runner.list_checkpoints("r1")
        assert [each async for each in runner.events("r1")]
        await runner.recover()
        await runner.delete_run("r1")
    assert admin.execute(f"SELECT {LEFT}".encode()).fetchone() == (0,)
