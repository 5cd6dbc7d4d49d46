"""`ui`: the dashboard as a process of its own."""

from __future__ import annotations

import http.client
import json
import signal

import anyio
import pytest

from tests.cli.command import APP, PATIENCE, Commands, enqueue, finish, interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_dashboard_is_served_until_a_signal(commands: Commands, number: signal.Signals) -> None:
    anyio.run(enqueue, commands.url, "ask", "run <1>")
    serving = commands.start("ui", *APP, "--port", "0", "--json")
    assert serving.stdout is not None
    url = json.loads(serving.stdout.readline())["url"]
    port = int(url.rpartition(":")[2])
    status, page = get(port, "/runs", "127.0.0.1")
    assert status == 200
    assert "run &lt;1&gt;" in page
    assert get(port, "/runs", "other.example")[0] == 400
    interrupt(serving, number)
    ended = finish(serving)
    assert (ended.code, ended.stderr) == (0, "")


def test_a_port_that_is_taken(commands: Commands) -> None:
    first = commands.start("ui", "--port", "0", "--read-only")
    assert first.stdout is not None
    port = first.stdout.readline().rpartition(":")[2].strip()
    refused = commands.run("ui", "--port", port)
    assert refused.code == 2
    assert f"error: 127.0.0.1:{port} cannot be served; give another --port" in refused.stderr
    assert "Traceback" not in refused.stderr
    interrupt(first)
    assert finish(first).code == 0


def get(port: int, path: str, host: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
