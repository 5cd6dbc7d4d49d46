"""Where runs are stored, and which workflows are known: what the options `--database` and `--app` say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from shlex import quote
from urllib.parse import urlsplit

from pydantic import ValidationError

from spine_async._model.config import WorkflowRunnerConfig
from spine_async._model.queue import Queue
from spine_async._model.workflow import Workflow
from spine_async.cli.application import Application, load_application
from spine_async.cli.log_lines import without_entries_of
from spine_async.cli.problem import CommandError
from spine_async.errors import StoreError
from spine_async.runner import WorkflowRunner
from spine_async.storage.selection import URL_VARIABLE, database_url

_OTHER_STORES = {
    "redis": "on a Redis server",
    "rediss": "on a Redis server",
    "unix": "on a Redis server",
    "file": "in a folder",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Opens runners for commands.

    Attributes:
        database: URL of the database, or None for the default.
        application: The application, or None.
    """

    database: str | None
    application: Application | None

    @classmethod
    def of(cls, database: str | None, app: str | None) -> Place:
        """The place of a command with these options.

        Raises:
            CommandError: The application cannot be imported; or it has a runner, and a database is given too.
        """
        application = load_application(app) if app is not None else None
        if application is not None and application.runner is not None and database is not None:
            raise CommandError(f"{app} has a runner with a database of its own; leave out --database")
        return cls(database, application)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[WorkflowRunner, None]:
        """A runner that claims no runs of others: a new one that knows the workflows, or that of the application.

        The runner of the application is not entered, because it would begin to work.
        """
        runner = self.runner()
        if self.application is not None and runner is self.application.runner:
            yield runner
            return
        async with AsyncExitStack() as stack:
            with without_entries_of("active_runs"):  # that the store cannot be opened is the error of the command
                await stack.enter_async_context(runner)
            yield runner

    def runner(self) -> WorkflowRunner:
        """The runner of the application, or a new one that claims no runs."""
        application = self.application
        if application is not None and application.runner is not None:
            return application.runner
        workflows = application.workflows.values() if application is not None else ()
        self.check_url()
        return WorkflowRunner(config=self.config(), work=False, workflows=workflows)

    def check_url(self) -> str:
        """The URL of the database, if there is no runner of an application.

        Raises:
            CommandError: It is empty or malformed, or names a database that is not supported.
            MissingExtraError: The driver of the database is not installed.
        """
        from spine_async.storage.sql.driver.url import parse_url  # noqa: PLC0415 - imports SQLAlchemy

        if self.database is not None and not self.database.strip():
            raise CommandError("--database is empty; give the URL of a database, or leave out the option")
        source = "--database" if self.database is not None else URL_VARIABLE
        try:
            url = database_url(self.config())
            place = _OTHER_STORES.get(url.strip().partition(":")[0].lower())
            if place is not None:
                raise CommandError(
                    f"{source} names no database; for runs {place}, give the runner that stores them there by --app, "
                    "such as --app myapp.service:runner; the URL of a SQLite file is sqlite:///path/to/file.db"
                )
            parse_url(url)
        except StoreError as exc:
            text = str(exc)
            raise CommandError(text if source in text else f"{source}: {text}") from None
        return url

    @property
    def shown(self) -> str:
        """Where runs are stored, without credentials, for messages."""
        application = self.application
        if application is not None and application.runner is not None:
            return f"the store of {application.target}"
        from spine_async.storage.sql.driver.url import parse_url, redacted  # noqa: PLC0415 - imports SQLAlchemy

        return redacted(parse_url(self.check_url()))

    def command(self, verb: str, run_id: str) -> str:
        """A command for a run that is stored here, as it can be typed. The password of a database is left out."""
        words = ["spine-async", verb, run_id]
        if self.application is not None:
            words += ["--app", self.application.target]
        if self.database is not None:
            words += ["--database", self.database if urlsplit(self.database).password is None else "…"]
        return " ".join(map(quote, words)).replace("'…'", "…")

    def known_workflow(self, name: str | None) -> Workflow:
        """The workflow of the application with this name, or its only one.

        Raises:
            CommandError: There is no application, or it has no such workflow.
        """
        if self.application is None:
            raise CommandError("give the module of the workflow, such as myapp.flows or myapp.flows:reports")
        return self.application.workflow(name)

    def worker(self, queues: Sequence[Queue], settings: Mapping[str, object]) -> WorkflowRunner:
        """A runner that works.

        Args:
            queues: The queues that are given on the command line; none: those of the application.
            settings: Settings of the config that are given on the command line.

        Raises:
            CommandError: The application has a runner, and queues or settings are given too.
        """
        application = self.application
        if application is None:
            raise CommandError("a worker needs the module of its workflows; give it, such as myapp.flows")
        if application.runner is not None:
            given = [*(["--queue"] if queues else []), *(f"--{name.replace('_', '-')}" for name in settings)]
            if given:
                raise CommandError(f"{application.target} has a runner with its own settings; leave out {given[0]}")
            if not application.runner.works:
                raise CommandError(
                    f"the runner of {application.target} has work=False, so it claims no runs; name one that works, or "
                    "a module of workflows"
                )
            return application.runner
        self.check_url()
        return WorkflowRunner(
            config=self.config(**settings),
            workflows=application.workflows.values(),
            queues=queues or application.queues,
            schedules=application.schedules,
        )

    def config(self, **settings: object) -> WorkflowRunnerConfig:
        """The config of a new runner.

        Raises:
            CommandError: A setting has an invalid value.
        """
        try:
            return WorkflowRunnerConfig.model_validate({"database_url": self.database, **settings})
        except ValidationError as exc:
            first = exc.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise CommandError(f"the setting {problem}") from None
