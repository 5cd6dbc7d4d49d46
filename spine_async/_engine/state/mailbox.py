"""Messages that were sent to a run and that none of its visits has taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from spine_async._engine.tasks import Future, new_future, resolve
from spine_async._model.due import Message


class Mailbox:
    """The messages of one run in this process. Each visit takes the oldest one of its names.

    Most runs get none, so an empty mailbox has no containers of its own.
    """

    __slots__ = ("_messages", "_taken", "_waiters")

    def __init__(self) -> None:
        self._messages: dict[int, Message] | None = None
        self._taken: set[int] | None = None
        self._waiters: list[Future[None]] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a visit waits for a message."""
        return any(not waiter.done() for waiter in self._waiters or ())

    @property
    def is_empty(self) -> bool:
        """Whether it has no message that could be taken."""
        return not self._messages

    def deliver(self, messages: Iterable[Message]) -> None:
        """Add messages; those that are known already have no effect."""
        known, taken = self._messages or {}, self._taken or ()
        news = {each.id: each for each in messages if each.id not in known and each.id not in taken}
        if news:
            self._messages = known | news
            waiters, self._waiters = self._waiters, None
            resolve(waiters or ())

    def has(self, names: Collection[str]) -> bool:
        """Whether there is a message with one of these names."""
        return any(each.name in names for each in (self._messages or {}).values())

    def take(self, names: Collection[str]) -> Message | None:
        """Remove and return the oldest message with one of these names, or None."""
        messages = self._messages
        found = min((each.id for each in messages.values() if each.name in names), default=None) if messages else None
        if messages is None or found is None:
            return None
        self._taken = self._taken or set()
        self._taken.add(found)
        return messages.pop(found)

    def put_back(self, message: Message) -> None:
        """Return a message that a visit has taken and will not commit."""
        if self._taken is not None:
            self._taken.discard(message.id)
        self.deliver([message])

    async def wait(self) -> None:
        """Wait until a message is delivered."""
        waiter: Future[None] = new_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)
