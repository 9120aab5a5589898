"""The MCP server, asked by the official client over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

from refocus_select import FrameSelector
from refocus_select.corpus.index import Index
from refocus_select.mcp import cli
from tests.corpus.clips import FILM
from tests.service.hostile import SECRET, hostile_videos, make_place

MESSAGE = 2**20
"""Most bytes of a message that the SDK's client takes over HTTP."""

TOOLS = {"find_frames", "look_at", "timeline", "describe_video", "search"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = make_place(tmp_path_factory.mktemp("mcp"))
    (found.root / "film.mp4").write_bytes(FILM.read_bytes())
    Index.build([found.root / "clip000.mp4", found.outside / "clip000.mp4"], found.root / "index", progress=False)
    return found


def command(place, *options):
    return ["-m", "refocus_select", "mcp", "--root", str(place.root), *options]


def over_stdio(place):
    return Client(StdioServerParameters(command=sys.executable, args=command(place)))


@pytest.fixture(scope="module")
def address(place):
    """A server over HTTP that works on one request at a time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--http", "--port", str(port), "--max-concurrent", "1")
    server = subprocess.Popen([sys.executable, *command(place, *options)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while True:
        assert server.poll() is None, server.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < until, "the server does not listen"
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/mcp"
    server.send_signal(signal.SIGINT)
    assert server.wait(30) is not None


def pictures(result):
    return [Image.open(io.BytesIO(base64.b64decode(part.data))) for part in result.content if part.type == "image"]


def texts(result):
    return "\n".join(part.text for part in result.content if part.type == "text")


def size_of(result):
    return len(result.model_dump_json(by_alias=True))


def test_an_agent_finds_the_moment_by_two_calls(place):
    async def ask():
        async with over_stdio(place) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools.keys() == TOOLS
            assert all(tool.output_schema and tool.description for tool in tools.values())
            heard = []

            async def progress(done, total, message):
                heard.append((done, total))

            question = {"video": "film.mp4", "question": "When is the bow drawn?", "num_frames": 4}
            found = await client.call_tool("find_frames", question, progress_callback=progress)
            times = [frame["time"] for frame in found.structured_content["frames"]]
            seen = await client.call_tool("look_at", {"video": "film.mp4", "times": times, "size": 480})
            return heard, found, seen

    heard, found, seen = asyncio.run(ask())
    assert not found.is_error, texts(found)
    wanted = FrameSelector.from_pretrained().select(FILM, "When is the bow drawn?", num_frames=4)
    assert [frame["time"] for frame in found.structured_content["frames"]] == pytest.approx(wanted.timestamps.tolist())
    assert [frame["frame"] for frame in found.structured_content["frames"]] == wanted.indices.tolist()
    assert [picture.size for picture in pictures(found)] == [(480, 270)] * 4  # not enlarged
    assert all(f"{time:.3f} s" in texts(found) for time in wanted.timestamps)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    assert all(0 < done <= total for done, total in heard)
    assert heard
    assert seen.structured_content["frames"] == found.structured_content["frames"]
    assert any(230 < frame["time"] < 330 for frame in found.structured_content["frames"])  # it is drawn and aimed there


def test_every_tool_answers_in_fields_and_pictures(place, address):
    async def ask():
        async with Client(address) as client:
            ask = client.call_tool
            return [
                await ask("timeline", {"video": "clip000.mp4", "question": "a number"}),
                await ask("describe_video", {"video": "clip001.mp4"}),
                await ask("search", {"collection": "index", "question": "a number", "k": 4}),
                await ask("look_at", {"video": "film.mp4", "times": ["0:10", "1:00.5", 90], "size": 2048}),
                await ask("find_frames", {"video": "film.mp4", "question": "a tree", "num_frames": 64, "size": 2048}),
                await ask("find_frames", {"video": "film.mp4", "question": "the bow", "num_frames": "auto"}),
            ]

    timeline, described, found, seen, many, auto = asyncio.run(ask())
    for result in (timeline, described, found, seen, many, auto):
        assert not result.is_error, texts(result)
        assert size_of(result) < MESSAGE
    parts = timeline.structured_content["parts"]
    assert parts[0]["start"] == 0.0
    assert parts[-1]["end"] == pytest.approx(2.0, abs=0.3)
    assert len(pictures(timeline)) == len(pictures(described)) == 1
    assert described.structured_content["num_frames"] == 55
    moments = found.structured_content["moments"]
    assert {moment["video"] for moment in moments} == {f"{place.root}/clip000.mp4", f"{place.outside}/clip000.mp4"}
    refused = [moment for moment in moments if moment["picture"] is None]  # indexed, but outside of the root
    assert {moment["video"] for moment in refused} == {f"{place.outside}/clip000.mp4"}
    assert len(found.structured_content["warnings"]) == len(refused)
    assert [frame["time"] for frame in seen.structured_content["frames"]] == pytest.approx([10, 60.5, 90], abs=1 / 24)
    assert len(pictures(many)) == 64
    assert 1 <= len(auto.structured_content["frames"]) <= 16


def test_a_hundred_calls_hostile_ones_among_them(place, address):
    good = [
        (
            "find_frames",
            {"video": f"clip00{i % 3}.mp4", "question": f"Where is thing {i}?", "num_frames": 2, "size": 64},
        )
        for i in range(40)
    ]
    bad = [("describe_video", {"video": video}) for video in hostile_videos(place)]
    bad += [("find_frames", {"video": video, "question": "a number"}) for video in hostile_videos(place)[:12]]
    bad += [
        ("find_frames", {"video": "clip000.mp4", "question": "  "}),
        ("find_frames", {"video": "clip000.mp4", "question": "x" * 3000}),
        ("find_frames", {"video": "clip000.mp4"}),
        ("find_frames", {"video": "clip000.mp4", "question": "what?", "num_frames": 0}),
        ("find_frames", {"video": "clip000.mp4", "question": "what?", "num_frames": 10**6}),
        ("find_frames", {"video": "clip000.mp4", "question": "what?", "start": 5, "end": 1}),
        ("find_frames", {"video": "clip000.mp4", "question": "what?", "start": "soon"}),
        ("find_frames", {"video": "clip000.mp4", "question": "what?", "selector": "../../evil"}),
        ("look_at", {"video": "clip000.mp4", "times": [1e9]}),
        ("look_at", {"video": "clip000.mp4", "times": []}),
        ("look_at", {"video": "clip000.mp4", "times": [0.1] * 500}),
        ("look_at", {"video": "clip000.mp4", "times": [0], "size": 10**6}),
        ("search", {"collection": "..", "question": "x"}),
        ("search", {"collection": "/etc", "question": "x"}),
        ("no_such_tool", {}),
    ]
    calls = [call for pair in zip(good, bad, strict=False) for call in pair] + bad[len(good) :]
    assert len(calls) >= 100

    async def ask():
        async with Client(address) as client:
            answers = []
            for name, arguments in calls:
                try:
                    answers.append(await client.call_tool(name, arguments))
                except Exception as error:
                    answers.append(str(error))
            return answers

    for (name, arguments), result in zip(calls, asyncio.run(ask()), strict=True):
        told = result if isinstance(result, str) else texts(result) + json.dumps(result.structured_content)
        failed = isinstance(result, str) or result.is_error
        assert failed == ((name, arguments) in bad), (name, arguments, told)
        assert SECRET not in told
        assert "Traceback" not in told


def test_two_clients_are_answered_at_once(place, address):
    async def one(video):
        async with Client(address) as client:
            question = {"video": video, "question": "a number", "num_frames": 3}
            return await client.call_tool("find_frames", question)

    async def both():
        return await asyncio.gather(one("clip001.mp4"), one("clip002.mp4"))

    first, second = asyncio.run(both())
    assert first.structured_content["video"] == "clip001.mp4"
    assert second.structured_content["video"] == "clip002.mp4"


KILLED = """
import asyncio, os, sys
from mcp import Client, StdioServerParameters

async def told(done, total, message):
    print("reading", flush=True)

async def main():
    server = sys.argv[1]
    if not server.startswith("http"):
        server = StdioServerParameters(command=sys.executable, args=sys.argv[1:])
    async with Client(server) as client:
        question = {"video": "film.mp4", "question": "a tree", "end": 500 + os.getpid() % 90}
        await client.call_tool("find_frames", question, progress_callback=told)
        print("answered", flush=True)

asyncio.run(main())
"""


def killed_client(*arguments):
    """Kills a client while the server reads a video for it."""
    client = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "reading\n"
    client.kill()
    client.wait()
    client.stdout.close()
    return client.pid


def test_the_server_goes_with_its_client_over_stdio(place, tmp_path):
    note = tmp_path / "pid"
    code = (
        f"import os, sys; open({str(note)!r}, 'w').write(str(os.getpid())); "
        f"from refocus_select.cli import main; sys.exit(main({command(place)[2:]!r}))"
    )
    killed_client("-c", code)
    server, until = int(note.read_text()), time.monotonic() + 40
    while is_running(server):
        assert time.monotonic() < until, "the server outlives its client"
        time.sleep(0.1)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # nobody may be there to fetch its status
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_a_killed_client_blocks_nobody_over_http(place, address):
    pid = killed_client(address)

    async def ask():
        async with Client(address) as client:
            after = await client.call_tool("describe_video", {"video": "clip000.mp4"})  # waits for the only slot
            heard = []

            async def progress(done, total, message):
                heard.append((done, total))

            again = {"video": "film.mp4", "question": "a tree", "end": 500 + pid % 90, "num_frames": 2}
            await client.call_tool("find_frames", again, progress_callback=progress)
            return after, heard

    after, heard = asyncio.run(ask())
    assert not after.is_error
    assert heard, "the reading that nobody waited for went on to its end"


def test_a_request_can_be_cancelled(place, address):
    async def ask():
        async with Client(address) as client:
            begun = asyncio.Event()

            async def progress(done, total, message):
                begun.set()

            question = {"video": "film.mp4", "question": "a tree", "start": 7.5}
            call = asyncio.create_task(client.call_tool("find_frames", question, progress_callback=progress))
            await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            after = await client.call_tool("describe_video", {"video": "clip000.mp4"})
            begun.clear()
            await client.call_tool("find_frames", question, progress_callback=progress)
            return after, begun.is_set()

    after, read_again = asyncio.run(ask())
    assert not after.is_error
    assert read_again


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
def test_pages_of_other_hosts_reach_nothing(address, headers, status):
    host, port = address.split("/")[2].split(":")
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    given = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("POST", "/mcp", json.dumps(body), given)
    response = connection.getresponse()
    assert (response.status, b"find_frames" in response.read()) == (status, False)
    connection.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])
def test_only_this_machine_is_listened_at(host, capsys):
    from refocus_select.cli import main

    assert main(["mcp", "--http", "--host", host]) == 2
    assert "--allow-host" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3"])
def test_addresses_of_this_machine(host):
    cli.check_loopback(host)


def test_bad_options_are_told_before_anything_is_served(tmp_path, capsys):
    from refocus_select.cli import main

    for options, told in (
        (["--root", str(tmp_path / "gone")], "no such folder"),
        (["--allow-url", "example.com"], "--allow-url"),
        (["--max-frames", "0"], "--max-frames"),
        (["--memory", "much"], "not a size"),
    ):
        assert main(["mcp", *options]) == 2
        assert told in capsys.readouterr().err
