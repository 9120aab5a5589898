"""Which videos a service reads, and what it says of the others."""

from __future__ import annotations

import http.server
import threading

import pytest

from refocus_select.errors import AccessError, RefocusError
from refocus_select.service import Access, CancelledError, Limits, VideoService
from refocus_select.service.store import Downloads
from tests.service.hostile import SECRET, hostile_videos, make_place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("access"))


def test_paths_below_a_root_in_every_spelling(place):
    access = Access.below([place.root])
    wanted = str(place.root / "clip000.mp4")
    for text in ("clip000.mp4", "./clip000.mp4", wanted, f"file://{wanted}", "pictures/../clip000.mp4"):
        assert access.video(text) == wanted


def test_everything_else_is_refused_with_the_remedy(place):
    with VideoService(Access.below([place.root])) as service:
        for text in hostile_videos(place):
            with pytest.raises(RefocusError) as caught:
                service.describe(text)
            assert SECRET not in str(caught.value), text
    with pytest.raises(AccessError, match="--root FOLDER"):
        Access.below([place.root]).path(str(place.outside / "secret.txt"))
    with pytest.raises(AccessError, match=r"--allow-url https://example\.invalid/"):
        Access.below([place.root]).allow_url("https://example.invalid/a.mp4")


def test_a_second_root_is_looked_into(place):
    access = Access.below([place.root, place.outside])
    assert access.video("link.mp4") == str(place.outside / "clip000.mp4")
    assert access.path("secret.txt") == place.outside / "secret.txt"


def test_a_missing_file_names_those_that_are_there(place):
    with pytest.raises(RefocusError, match=r"no such file.*clip000\.mp4, clip001\.mp4"):
        Access.below([place.root]).path("bunny.mp4")


def test_the_whole_disk_is_no_default(monkeypatch):
    monkeypatch.chdir("/")
    with pytest.raises(AccessError, match="start with --root"):
        Access.below().path("etc/passwd")


def test_large_files_and_long_videos_are_refused(place):
    with pytest.raises(AccessError, match="--max-size"):
        Access.below([place.root], max_bytes=1000).video("clip000.mp4")
    access = Access.below([place.root])
    with VideoService(access, limits=Limits(max_duration=1.0)) as service:
        with pytest.raises(AccessError, match="--max-duration"):
            service.select("clip000.mp4", "what?")
        assert len(service.select("clip000.mp4", "what?", start=0.5, end=1.25, num_frames=2)) == 2
    with VideoService(access, limits=Limits(max_frames=4)) as service, pytest.raises(AccessError, match="--max-frames"):
        service.select("clip000.mp4", "what?", num_frames=5)


def test_selectors_and_encoders_that_were_not_allowed_are_refused(place, tmp_path):
    with VideoService(Access.below([place.root])) as service:
        with pytest.raises(AccessError, match=r"--selector someone/policy"):
            service.select("clip000.mp4", "what?", selector="someone/policy")
        with pytest.raises(AccessError, match=r"--encoder os:system"):
            service.select("clip000.mp4", "what?", encoder="os:system")


@pytest.mark.parametrize(
    ("allowed", "url", "fine"),
    [
        ("https://a.example/v/", "https://a.example/v/1.mp4", True),
        ("https://a.example/v", "https://a.example/v/1.mp4", True),
        ("https://a.example", "https://a.example/1.mp4", True),
        ("https://a.example/v", "https://a.example/video.mp4", False),
        ("https://a.example/v/", "https://a.example/v/../w.mp4", False),
        ("https://a.example/", "http://a.example/1.mp4", False),
        ("https://a.example/", "https://a.example:8443/1.mp4", False),
        ("https://a.example/", "https://a.example.evil.org/1.mp4", False),
        ("https://a.example/", "https://a.example@evil.org/1.mp4", False),
        ("https://a.example/", "https://a.example:x/1.mp4", False),
    ],
)
def test_addresses_are_compared_by_their_parts(allowed, url, fine, tmp_path):
    access = Access.below([tmp_path], [allowed])
    if fine:
        access.allow_url(url)
    else:
        with pytest.raises(AccessError):
            access.allow_url(url)


@pytest.fixture
def site(place):
    """A server with one clip, and an address that leads away from it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        asked: list[str] = []  # noqa: RUF012

        def do_GET(self):
            self.asked.append(self.path)
            if self.path == "/clips/away.mp4":
                self.send_response(302)
                self.send_header("Location", "/private/clip.mp4")
                self.end_headers()
                return
            content = (place.root / "clip000.mp4").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_allowed_address_is_downloaded_once_and_no_redirection_leaves_it(place, site):
    address, asked = site
    access = Access.below([place.root], [f"{address}/clips/"])
    with VideoService(access) as service:
        for question in ("one?", "two?"):
            assert len(service.select(f"{address}/clips/1.mp4", question, num_frames=3).frames) == 3
        assert asked == ["/clips/1.mp4"]
        with pytest.raises(AccessError, match="--allow-url"):
            service.describe(f"{address}/clips/away.mp4")
        assert "/private/clip.mp4" not in asked
        folder = service._downloads._folder
        assert folder.is_dir()
    assert not folder.exists()


def test_a_download_that_is_too_large_or_not_wanted_any_more_leaves_nothing(place, site):
    address, _ = site
    service = VideoService(Access.below([place.root], [address], max_bytes=1000))
    downloads = Downloads(service.access)
    with pytest.raises(RefocusError, match="larger than 1000 bytes"):
        downloads.path(f"{address}/a.mp4", service.task())
    task = service.task()
    task.cancel()
    with pytest.raises(CancelledError):
        downloads.path(f"{address}/a.mp4", task)
    assert list(downloads._folder.iterdir()) == []
    downloads.close()
