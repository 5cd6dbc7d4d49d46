"""Messages that were sent to a run and that none of its visits has taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from spine_async._engine.tasks import Future, new_future, resolve
from spine_async._model.due import Message


class Mailbox:
    """The messages of one run in this process. Each visit takes the oldest one of its names."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}
        self._taken: set[int] = set()
        self._waiters: list[Future[None]] = []

    @property
    def is_awaited(self) -> bool:
        """Whether a visit waits for a message."""
        return any(not waiter.done() for waiter in self._waiters)

    @property
    def is_empty(self) -> bool:
        """Whether it has no message that could be taken."""
        return not self._messages

    def deliver(self, messages: Iterable[Message]) -> None:
        """Add messages; those that are known already have no effect."""
        news = {each.id: each for each in messages if each.id not in self._messages and each.id not in self._taken}
        if news:
            self._messages |= news
            waiters, self._waiters = self._waiters, []
            resolve(waiters)

    def take(self, names: Collection[str]) -> Message | None:
        """Remove and return the oldest message with one of these names, or None."""
        found = min((each.id for each in self._messages.values() if each.name in names), default=None)
        if found is None:
            return None
        self._taken.add(found)
        return self._messages.pop(found)

    def put_back(self, message: Message) -> None:
        """Return a message that a visit has taken and will not commit."""
        self._taken.discard(message.id)
        self.deliver([message])

    async def wait(self) -> None:
        """Wait until a message is delivered."""
        waiter: Future[None] = new_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
