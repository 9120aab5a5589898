"""The page: drop a video, ask, see the frames beside those of another selector, play at their times, export."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from ..corpus.index import SUFFIXES
from ..errors import RefocusError
from ..selection import Selection
from ..service import CancelledError, Task, VideoService
from ..service.service import EMBEDDED
from ..service.store import Kept
from .render import PLAY, STYLE, Row, answer_html, message_html, snippet

_THUMBNAIL = 320  # pixels of the longer side
_MOST_CHOICES = 200  # videos below the roots that can be chosen from a list
_MOST_EXPORTS = 20  # kept on disk
_NOBODY = "nobody"
_HINT = "Drop a video, ask a question, and press Enter. The first question reads the video; further ones are fast."
THEME = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
"""Without fonts of other hosts: the page asks for nothing beyond this server."""


@dataclass(frozen=True)
class Export:
    """Files of an answer that can be downloaded."""

    folder: Path
    frames: Path
    record: Path


class Page:
    """What the page does, for all who have it open.

    Attributes:
        service: reads the videos, also those that are uploaded.
    """

    def __init__(self, service: VideoService) -> None:
        """Let the service read what is uploaded.

        Args:
            service: of which selectors, encoders and limits are taken.
        """
        self.service = service
        self._folder = Path(tempfile.mkdtemp(prefix="refocus-select-ui-")).resolve()
        self.uploads = Path(os.environ.setdefault("GRADIO_TEMP_DIR", str(self._folder / "uploads"))).resolve()
        self.uploads.mkdir(parents=True, exist_ok=True)
        service.access = replace(service.access, roots=(*service.access.roots, self.uploads))
        self._exports: Kept[Export] = Kept(_MOST_EXPORTS, forget=lambda export: shutil.rmtree(export.folder, True))
        self._tasks: dict[str, Task] = {}

    def close(self) -> None:
        """Remove uploads and exports."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def choices(self) -> list[str]:
        """Videos below the roots, as paths relative to them."""
        found = []
        for root in self.service.access.roots:
            if root == self.uploads:
                continue
            for folder, folders, names in os.walk(root):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                found += [
                    os.path.relpath(os.path.join(folder, name), root)
                    for name in sorted(names)
                    if os.path.splitext(name)[1].lower() in SUFFIXES
                ]
                if len(found) >= _MOST_CHOICES:
                    return found[:_MOST_CHOICES]
        return found

    def play(self, name: str | None) -> str | None:
        """A copy (where possible, a link) of a chosen video that the browser may load: nothing else is served."""
        if not name:
            return None
        try:
            source = Path(self.service.access.video(name))
        except RefocusError:
            return None
        target = Path(tempfile.mkdtemp(dir=self.uploads)) / source.name  # gradio removes it when the visitor leaves
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        return str(target)

    def ask(
        self,
        video: str | None,
        chosen: str | None,
        question: str,
        count: int,
        auto: bool,
        selector: str,
        other: str,
        encoder: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # how gradio hands it in
    ) -> Iterator[tuple[Any, ...]]:
        """Answer; the last values are HTML, code, and the files to download."""
        nothing = (None, gr.update(interactive=False), gr.update(interactive=False))
        if not video:
            yield message_html("First drop or choose a video.", error=True), *nothing
            return
        if not question.strip():
            yield message_html("First write a question.", error=True), *nothing
            return
        if chosen and Path(chosen).name == Path(video).name:
            video = chosen  # where it lies, with the transcript beside it
        self.stop(request)
        task = self.service.task(lambda done, total: progress((done, total), desc="frames read", unit="frames"))
        self._tasks[str(request.session_hash)] = task
        asked: dict[str, Any] = {"num_frames": "auto" if auto else int(count), "encoder": encoder, "task": task}
        try:
            rows = [self._row(video, question, "chosen", **asked, selector=selector)]
            if other != _NOBODY:
                number = len(rows[0].selection)
                rows.append(self._row(video, question, "other", **{**asked, "num_frames": number}, selector=other))
            export = self._export(rows[0].selection, task)
        except RefocusError as error:
            yield message_html(str(error).replace(video, Path(video).name), error=True), *nothing
            return
        except CancelledError:
            yield message_html("Stopped."), *nothing
            return
        named = None if encoder == EMBEDDED else encoder
        code = snippet(rows[0].selection, Path(video).name, selector, named, asked["num_frames"])
        yield (
            answer_html(rows),
            code,
            gr.update(value=str(export.frames), interactive=True),
            gr.update(value=str(export.record), interactive=True),
        )

    def stop(self, request: gr.Request) -> None:
        """End what is going on for this visitor."""
        task = self._tasks.pop(str(request.session_hash), None)
        if task is not None:
            task.cancel()

    def _row(self, video: str, question: str, colour: str, *, task: Task, **asked: Any) -> Row:
        chosen = self.service.select(video, question, task=task, **asked)
        _, frames = self.service.look(video, chosen.timestamps.tolist(), longest=_THUMBNAIL, task=task)
        return Row(chosen, frames, colour)

    def _export(self, chosen: Selection, task: Task) -> Export:
        def make() -> Export:
            folder = Path(tempfile.mkdtemp(dir=self.uploads))
            saved = chosen.save(folder / "frames")
            record = saved / "selection.json"
            content = json.loads(record.read_text("utf-8"))
            content["video"] = Path(content["video"]).name  # not where this server keeps it
            record.write_text(json.dumps(content, ensure_ascii=False, indent=2), "utf-8")
            frames = folder / "frames.zip"
            with zipfile.ZipFile(frames, "w") as archive:
                for path in sorted(saved.iterdir()):
                    archive.write(path, path.name)
            return Export(folder, frames, record)

        return self._exports.get(object(), make, task)


def build_page(service: VideoService) -> gr.Blocks:
    """The page as Gradio blocks; `launch()` them, with `LAUNCH` as arguments, or serve them by `refocus-select ui`.

    Args:
        service: which videos below its roots can be chosen, and how much a visitor may ask for.
    """
    page = Page(service)
    choices = page.choices()
    with gr.Blocks(title="refocus-select", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        gr.Markdown("# Which frames answer this?")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                video = gr.Video(label="Video", sources=["upload"], elem_id="rs-video", buttons=[])
                chosen = gr.Dropdown(choices, value=None, label="or choose one", visible=bool(choices))
                question = gr.Textbox(
                    label="Question", placeholder="When is the bow drawn?", max_length=2000, elem_id="rs-ask"
                )
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="rs-go")
                    stop = gr.Button("Stop", elem_id="rs-stop")
                with gr.Accordion("Selector and number of frames", open=False):
                    count = gr.Slider(1, min(32, service.limits.max_frames), value=8, step=1, label="Frames")
                    auto = gr.Checkbox(label="As many as the question needs")
                    selector = gr.Dropdown(service.selectors, value=service.default_selector, label="Selector")
                    other = gr.Dropdown([_NOBODY, *service.selectors], value="uniform", label="Compare with")
                    encoder = gr.Dropdown(
                        service.encoders, value=service.encoders[0], label="Encoder", visible=len(service.encoders) > 1
                    )
            with gr.Column(scale=3, min_width=300):
                answer = gr.HTML(message_html(_HINT), js_on_load=PLAY, elem_id="rs-result")
                with gr.Row():
                    frames = gr.DownloadButton("Frames (zip)", interactive=False, elem_id="rs-zip", size="sm")
                    record = gr.DownloadButton(
                        "Times and scores (JSON)", interactive=False, elem_id="rs-json", size="sm"
                    )
                with gr.Accordion("For your own model", open=False):
                    code = gr.Code(language="python", label="Python", elem_id="rs-code")
        chosen.input(page.play, chosen, video, show_progress="hidden", api_visibility="private")
        video.upload(lambda: None, None, chosen, queue=False, api_visibility="private")
        given = [video, chosen, question, count, auto, selector, other, encoder]
        gr.on(
            [ask.click, question.submit],
            page.ask,
            given,
            [answer, code, frames, record],
            concurrency_limit=service.limits.max_concurrent + service.limits.max_waiting,
            trigger_mode="always_last",
            show_progress="full",
            show_progress_on=answer,
            api_visibility="private",
        )
        stop.click(page.stop, queue=False, api_visibility="private")
        blocks.unload(page.stop)
    return blocks


LAUNCH: dict[str, Any] = {"theme": THEME, "css": STYLE, "footer_links": []}
"""Arguments for `launch` and `mount_gradio_app`."""
