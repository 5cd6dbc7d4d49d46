"""Messages of a run until a visit takes them."""

from __future__ import annotations

import anyio

from spine_async._engine.state.mailbox import Mailbox
from spine_async._model.due import Message
from tests.unit._engine.builders import NOW


def message(number: int, name: str = "go") -> Message:
    return Message(number, name, str(number), NOW)


def test_messages_are_taken_in_the_order_of_arrival_whatever_the_order_of_delivery() -> None:
    mailbox = Mailbox()
    mailbox.deliver([message(3), message(1)])
    mailbox.deliver([message(2)])
    taken = [mailbox.take({"go"}) for _ in range(4)]
    assert taken == [message(1), message(2), message(3), None]


def test_a_visit_takes_messages_of_its_names_only() -> None:
    mailbox = Mailbox()
    mailbox.deliver([message(1, "other"), message(2, "go"), message(3, "on")])
    assert mailbox.take({"on", "go"}) == message(2, "go")
    assert mailbox.take({"go"}) is None
    assert mailbox.take({"other"}) == message(1, "other")


def test_a_message_that_was_taken_is_not_delivered_again() -> None:
    """The store still has it until the commit of the visit that took it."""
    mailbox = Mailbox()
    mailbox.deliver([message(1)])
    mailbox.take({"go"})
    mailbox.deliver([message(1)])
    assert mailbox.take({"go"}) is None


def test_a_message_that_is_read_twice_is_delivered_once() -> None:
    mailbox = Mailbox()
    mailbox.deliver([message(1)])
    mailbox.deliver([message(1)])
    assert [mailbox.take({"go"}), mailbox.take({"go"})] == [message(1), None]


def test_a_message_that_was_put_back_is_the_next_one_again() -> None:
    mailbox = Mailbox()
    mailbox.deliver([message(1), message(2)])
    first = mailbox.take({"go"})
    assert first is not None
    mailbox.put_back(first)
    assert [mailbox.take({"go"}), mailbox.take({"go"})] == [message(1), message(2)]


async def test_a_delivery_wakes_all_who_wait() -> None:
    mailbox = Mailbox()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mailbox.wait)
        tasks.start_soon(mailbox.wait)
        await anyio.wait_all_tasks_blocked()
        assert mailbox.is_awaited
        mailbox.deliver([message(1)])
    assert not mailbox.is_awaited


async def test_a_message_that_was_put_back_wakes_those_who_wait() -> None:
    mailbox = Mailbox()
    mailbox.deliver([message(1)])
    taken = mailbox.take({"go"})
    assert taken is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mailbox.wait)
        await anyio.wait_all_tasks_blocked()
        mailbox.put_back(taken)


async def test_what_is_known_already_wakes_nobody() -> None:
    mailbox = Mailbox()
    mailbox.deliver([message(1), message(2)])
    mailbox.take({"go"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mailbox.wait)
        await anyio.wait_all_tasks_blocked()
        mailbox.deliver([message(1), message(2)])
        await anyio.wait_all_tasks_blocked()
        assert mailbox.is_awaited
        tasks.cancel_scope.cancel()
    assert not mailbox.is_awaited
