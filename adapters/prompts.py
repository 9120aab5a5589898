"""Write times into a rendered prompt, beside its video placeholders."""

from __future__ import annotations

from collections.abc import Sequence

from .families import WRAPPERS


def write_times(
    prompt: str, video_token: str, time_texts: Sequence[str], in_front: Sequence[Sequence[str] | None]
) -> str:
    """Add the times of the videos of one prompt.

    Args:
        prompt: text with one `video_token` per video.
        video_token: the placeholder; where a prompt has none (InstructBLIP-Video), times are put in front of the text.
        time_texts: per video, a sentence to add behind its placeholder; "" for none.
        in_front: per video, texts if its placeholder is to be repeated once for each of them, which is put in front.

    Returns:
        The prompt; unchanged if it has another number of placeholders than there are videos, which the processor
        reports.
    """
    pieces = prompt.split(video_token) if video_token else [prompt]
    if len(pieces) == 1:
        return "".join(f"{t}\n" for t in time_texts if t) + prompt
    if len(pieces) - 1 != len(time_texts):
        return prompt
    written = pieces[0]
    for sentence, times, rest in zip(time_texts, in_front, pieces[1:], strict=True):
        before, after = _wrapper(written, rest)
        written = written[: len(written) - len(before)]
        placeholder, rest = f"{before}{video_token}{after}", rest[len(after) :]
        if times is not None and rest.startswith("\n"):  # templates of LLaVA and InternVL end a video with a line
            placeholder, rest = f"{placeholder}\n", rest[1:]
        written += placeholder if times is None else "".join(f"{text}{placeholder}" for text in times)
        if sentence and rest.startswith("\n"):
            written += f"\n{sentence}"
        elif sentence:
            written += f"{sentence}\n"
        written += rest
    return written


def without_videos(prompt: str, video_token: str) -> str:
    """A prompt without its video placeholders and what templates write around them."""
    if not video_token:
        return prompt
    written, *pieces = prompt.split(video_token)
    for rest in pieces:
        before, after = _wrapper(written, rest)
        written = written[: len(written) - len(before)] + rest[len(after) :]
    return written


def _wrapper(before: str, after: str) -> tuple[str, str]:
    return next((w for w in WRAPPERS if before.endswith(w[0]) and after.startswith(w[1])), ("", ""))
