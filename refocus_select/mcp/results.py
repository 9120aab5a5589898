"""What the tools answer: fields for programs, and text with pictures for the model that reads them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Literal

from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import BaseModel, Field

from ..pictures import clock
from ..plain_text import printable


class Moment(BaseModel):
    """A frame."""

    time: float = Field(description="seconds from the first frame, the true time of the frame")
    clock: str = Field(description="the same for people, as 4:26.8")
    frame: int = Field(description="number of the frame in the video")
    picture: int | None = Field(None, description="number of its picture in the content, from 1; null without picture")

    @classmethod
    def at(cls, time: float, frame: int, picture: int | None = None) -> Moment:
        """The moment of a frame."""
        return cls(time=round(float(time), 6), clock=clock(float(time)), frame=int(frame), picture=picture)


class Line(BaseModel):
    """Something said or written in the video."""

    start: float = Field(description="seconds")
    end: float = Field(description="seconds")
    text: str
    source: Literal["spoken", "written"]


class FoundFrames(BaseModel):
    """Answer of find_frames."""

    video: str
    question: str
    duration: float = Field(description="of the video in seconds")
    strategy: str = Field(
        description='"selected", or "uniform_fallback": nothing stood out, the frames are spread evenly'
    )
    enough: int | None = Field(description="how many frames are enough for the question; null if that is not known")
    frames: list[Moment] = Field(description="in the order of time")
    quotes: list[Line] = Field(description="what is said or written there, where words decided")
    warnings: list[str]


class SeenFrames(BaseModel):
    """Answer of look_at."""

    video: str
    duration: float
    frames: list[Moment]
    warnings: list[str]


class TimelinePart(BaseModel):
    """One part of the timeline."""

    start: float
    end: float
    score: float | None = Field(description="the best score in this part, larger is better; null for none")


class Timeline(BaseModel):
    """Answer of timeline."""

    video: str
    question: str
    duration: float
    strategy: str = Field(description="see find_frames")
    parts: list[TimelinePart] = Field(description="the video in equal parts")
    chosen: list[Moment] = Field(description="frames that would be chosen")
    warnings: list[str]


class VideoDescription(BaseModel):
    """Answer of describe_video."""

    video: str
    duration: float
    width: int
    height: int
    num_frames: int
    average_fps: float
    codec: str
    words_from: str | None = Field(description="where the lines come from; null if nothing is known of what is said")
    num_lines: int
    lines: list[Line] = Field(description="the first lines of what is said")
    overview: list[Moment] = Field(description="evenly spread")
    warnings: list[str]


class FoundMoment(Moment):
    """A moment in one of several videos."""

    video: str
    score: float = Field(description="larger is better, comparable within one collection")


class FoundMoments(BaseModel):
    """Answer of search."""

    collection: str
    question: str
    moments: list[FoundMoment] = Field(description="the best first")
    warnings: list[str]


def answer(
    result: BaseModel, head: str, pictures: Iterable[tuple[str, bytes]], tail: Sequence[str] = ()
) -> CallToolResult:
    """A result for both: the model reads a head, every picture below its own label, and a tail.

    Args:
        result: the same for programs.
        head: first text.
        pictures: (label, JPEG).
        tail: further lines of text.
    """
    content: list[ContentBlock] = [TextContent(type="text", text=printable(head))]
    for label, picture in pictures:
        content.append(TextContent(type="text", text=printable(label)))
        content.append(ImageContent(type="image", data=base64.b64encode(picture).decode(), mime_type="image/jpeg"))
    if tail:
        content.append(TextContent(type="text", text=printable("\n".join(tail))))
    return CallToolResult(content=content, structured_content=result.model_dump(mode="json"))
