"""The page as a person uses it, in a real browser. `make test-browser` runs it and writes pictures of it."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from refocus_select import FrameSelector
from tests.corpus.clips import FILM, write_clips

PICTURES = Path(os.environ.get("PICTURES", "")) if os.environ.get("PICTURES") else None
HOSTILE = '<img src=x onerror="alert(1)"> ${alert(2)} {{constructor}} **bold** \'"'


def take_picture(page, name):
    if PICTURES is not None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / name, full_page=True)


def upload(page, path):
    page.set_input_files("#rs-video input[type=file]", path)
    page.wait_for_selector("#rs-video video")


def ask(page, question):
    before = page.evaluate("document.querySelector('#rs-result .rs-error')?.textContent")
    page.fill("#rs-ask textarea", question)
    page.press("#rs-ask textarea", "Enter")
    page.wait_for_function(
        "([asked, before]) => { const now = document.querySelector('#rs-result');"
        " return now.querySelector('.rs-question')?.textContent === asked"
        " || (now.querySelector('.rs-error')?.textContent ?? before) !== before }",
        arg=[question, before],
    )


def times(page, kind="chosen"):
    found = page.eval_on_selector_all(f".rs-frame.rs-{kind}", "all => all.map(x => Number(x.dataset.time))")
    return [round(time, 3) for time in found]


def choose(page, label, value):
    box = page.get_by_label(label, exact=True)
    box.click()
    box.fill(value)
    page.get_by_role("option", name=value, exact=True).click()


def open_settings(page):
    page.get_by_role("button", name="Selector and number of frames").click()


def test_upload_two_questions_another_selector_and_export(open_page, tmp_path):
    page = open_page()
    upload(page, FILM)
    ask(page, "When is the bow drawn?")
    wanted = FrameSelector.from_pretrained().select(FILM, "When is the bow drawn?", num_frames=8)
    assert times(page) == [round(float(t), 3) for t in wanted.timestamps]
    assert len(times(page, "other")) == 8  # uniform, beside
    assert times(page, "other") != times(page)
    take_picture(page, "answer.png")

    page.locator(".rs-frame.rs-chosen").nth(2).press("Enter")
    page.wait_for_function(
        "t => Math.abs(document.querySelector('#rs-video video').currentTime - t) < 5", arg=times(page)[2]
    )

    before = times(page)
    ask(page, "Where are the credits?")  # without reading the film again
    assert times(page) != before

    open_settings(page)
    choose(page, "Selector", "mmr")
    choose(page, "Compare with", "nobody")
    ask(page, "When is the bow used?")
    wanted = FrameSelector.from_pretrained("mmr").select(FILM, "When is the bow used?", num_frames=8)
    assert times(page) == [round(float(t), 3) for t in wanted.timestamps]
    assert times(page, "other") == []

    with page.expect_download() as caught:
        page.click("#rs-zip")
    caught.value.save_as(tmp_path / "frames.zip")
    with zipfile.ZipFile(tmp_path / "frames.zip") as archive:
        assert archive.testzip() is None
        assert len([name for name in archive.namelist() if name.endswith(".jpg")]) == 8
    with page.expect_download() as caught:
        page.click("#rs-json")
    caught.value.save_as(tmp_path / "answer.json")
    record = json.loads((tmp_path / "answer.json").read_text("utf-8"))
    assert record["timestamps"] == pytest.approx(wanted.timestamps.tolist())
    assert record["video"] == FILM.name

    page.get_by_role("button", name="For your own model").click()
    code = page.locator("#rs-code .cm-content").inner_text()
    assert "select_frames('big_buck_bunny.mp4', 'When is the bow used?', 8, selector='mmr')" in code
    compile(code, "snippet", "exec")


def test_a_video_of_the_server_can_be_chosen_by_keyboard_on_a_phone(open_page):
    page = open_page(360, 740)
    choose(page, "or choose one", "film.mp4")
    page.wait_for_selector("#rs-video video")
    page.focus("#rs-ask textarea")
    page.keyboard.type("a rabbit on a meadow")
    page.keyboard.press("Enter")
    page.wait_for_selector(".rs-frame")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.eval_on_selector_all(".rs-frame", "all => all.map(x => x.getBoundingClientRect().width)")
    assert min(sizes) >= 100
    take_picture(page, "phone.png")
    ask(page, "What does he say the password is?")  # the transcript beside the film
    assert page.inner_text(".rs-quotes q") == "The password is swordfish."


def test_broken_files_and_empty_questions_are_told(open_page, tmp_path):
    page = open_page()
    page.click("#rs-go")
    page.wait_for_selector(".rs-error")
    assert "choose a video" in page.inner_text(".rs-error")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(FILM.read_bytes()[:50_000])
    upload(page, broken)
    ask(page, "When is the bow drawn?")
    told = page.inner_text(".rs-error")
    assert "broken.mp4" in told
    assert str(tmp_path) not in told
    assert "/refocus-select-ui" not in told
    take_picture(page, "broken.png")


def test_nothing_is_injected(open_page, tmp_path):
    name = "<img src=x onerror=alert(3)>.mp4"
    clip = write_clips(tmp_path, 1)[0].rename(tmp_path / name)
    clip.with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:02,000\n<script>alert(4)</script>\n", "utf-8")
    page = open_page()
    upload(page, clip)
    ask(page, HOSTILE)
    assert page.inner_text(".rs-question") == HOSTILE
    assert page.locator("#rs-result img[src=x]").count() == 0
    assert page.locator("#rs-result .rs-frame img").count() == 16
    page.wait_for_timeout(500)  # a script would have its turn; dialogs fail the test


def test_other_hosts_and_files_are_refused(address, open_page):
    import http.client

    host, port = address.removeprefix("http://").split(":")
    for name in ("evil.example", f"evil.example:{port}"):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/", headers={"Host": name})
        assert connection.getresponse().status == 400
        connection.close()
    for path in ("/etc/passwd", str(Path(__file__)), str(Path.cwd() / "pyproject.toml")):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", f"/gradio_api/file={path}")
        assert connection.getresponse().status in (403, 404)
        connection.close()
