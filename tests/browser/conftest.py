"""A page served on this machine, and a real browser to look at it: Debian's Chromium, or another by CHROMIUM=…"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    from tests.corpus.clips import FILM

    root = tmp_path_factory.mktemp("films")
    shutil.copy(FILM, root / "film.mp4")
    (root / "film.srt").write_text("1\n00:05:00,000 --> 00:05:04,000\nThe password is swordfish.\n", "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "refocus_select", "ui", "--root", str(root), "--port", str(port)]
    log = tmp_path_factory.mktemp("log") / "server.txt"
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    until = time.monotonic() + 120
    while True:
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < until, "the page is not served"
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)
    server.wait(30)
    assert "/refocus_select/" not in log.read_text(), log.read_text()  # no error in code of ours


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "no Chromium: apt-get install chromium, or name one by CHROMIUM=…"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(address, chromium):
    """Opens the page at a size; what it asks of other hosts, and errors of its scripts, fail the test."""
    contexts, wrong = [], []

    def asked(request):
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"asked for {request.url}")

    def open_at(width=1280, height=1000):
        context = chromium.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", asked)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(address)
        page.wait_for_selector("#rs-go")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not wrong
