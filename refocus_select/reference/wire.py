"""What passes between `refocus-select serve-reference` and its clients: JSON.

A client and a server that see the same files send paths: the server then decodes by itself, keeps the visual tokens of
every candidate, and gives the very logits that it would give in the client's process.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..questions import Question
from ..video import CandidateRule
from .base import Request
from .clips import Clip, VideoClip

VERSION = 1


def packed(request: Request) -> dict[str, Any]:
    """A request as JSON can hold it.

    Raises:
        InputError: for videos that are no files.
    """
    clip, question = request.clip, request.question
    if not isinstance(clip, VideoClip):
        raise InputError(
            f"question {question.id}: {type(clip).__name__} cannot be sent to a reference model elsewhere, which needs "
            "the video's file; run the reference model in this process"
        )
    return {
        "version": VERSION, "video": clip.source, "key": clip.key,
        "rule": {"fps": clip.rule.fps, "max_frames": clip.rule.max_frames, "method": clip.rule.method},
        "id": question.id, "question": question.question, "options": list(question.options),
        "extra": {name: value for name, value in question.extra.items() if isinstance(value, str | int | float)},
        "subsets": request.subsets.tolist(),
    }  # fmt: skip


def unpacked(content: Mapping[str, Any], clip: Any) -> Request:
    """The request in the content of a message.

    Args:
        content: from `packed`.
        clip: from the video's path and the `CandidateRule` to the clip.

    Raises:
        InputError: for something else, or another video under the same path.
    """
    try:
        if content["version"] != VERSION:
            raise InputError(f"the client speaks version {content['version']!r}, this server {VERSION}; update both")
        rule = CandidateRule(**content["rule"])
        found: Clip = clip(str(content["video"]), rule)
        subsets = torch.tensor(content["subsets"], dtype=torch.int64)
        options = tuple(str(option) for option in content["options"])
        question = Question(str(content["id"]), str(content["video"]), str(content["question"]), options,
                            extra=dict(content["extra"]))  # fmt: skip
        key = str(content["key"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"this is no request of refocus-select ({type(error).__name__}: {error})") from error
    if found.key != key:
        raise InputError(f"{content['video']} is another video here than where it is asked about")
    return Request(question, found, subsets)


def data_url(picture: np.ndarray, quality: int = 95) -> str:
    """A picture, uint8 RGB [H, W, 3], as a JPEG in a data URL."""
    import cv2

    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"a picture of shape {list(picture.shape)} cannot be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
