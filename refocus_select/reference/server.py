"""`refocus-select serve-reference`: a reference model behind HTTP, for training processes on this machine or others.

    GET  /             identity: name, fingerprint, version
    POST /logits       one request (`wire.packed`); answers {"logits": [[…] …], "fingerprint": …}

Requests are answered one after another, in the order of their arrival: the model's passes are as large as its token
budget allows already. What the answer to one request is depends on no other.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..errors import RefocusError, VideoError
from ..plain_text import parse_json
from ..video import CandidateRule
from .base import ReferenceModel
from .clips import VideoClip
from .wire import VERSION, unpacked

logger = logging.getLogger(__name__)

_MOST = 64 * 2**20  # bytes of a request
_CLIPS = 64


class ReferenceServer(ThreadingHTTPServer):
    """Serves one reference model until `shutdown`."""

    daemon_threads = True

    def __init__(self, reference: ReferenceModel, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one (`server_address` tells which)."""
        super().__init__((host, port), _Handler)
        self.reference = reference
        self.lock = threading.Lock()
        self._clips: OrderedDict[tuple[str, CandidateRule], VideoClip] = OrderedDict()

    def clip(self, video: str, rule: CandidateRule) -> VideoClip:
        """The candidates of a video; the last few stay open."""
        key = (video, rule)
        if key not in self._clips:
            self._clips[key] = VideoClip(video, rule)
            while len(self._clips) > _CLIPS:
                self._clips.popitem(last=False)
        self._clips.move_to_end(key)
        return self._clips[key]


class _Handler(BaseHTTPRequestHandler):
    server: ReferenceServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        reference = self.server.reference
        self._answer(200, {"name": reference.name, "fingerprint": reference.fingerprint, "version": VERSION})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/logits" or not 0 < length <= _MOST:
            self.close_connection = True
            self._answer(404, {"error": "POST a request to /logits"})
            return
        try:
            content = parse_json(self.rfile.read(length))
            with self.server.lock:
                request = unpacked(content if isinstance(content, dict) else {}, self.server.clip)
                (logits,) = self.server.reference.option_logits([request])
        except VideoError as error:
            self._answer(422, {"error": str(error), "unreadable": True})
        except (RefocusError, ValueError) as error:
            self._answer(422, {"error": str(error)})
        except Exception as error:  # the server outlives a full device, and the client tries again
            logger.exception("a request failed")
            self._answer(503, {"error": f"{type(error).__name__}: {error}"})
        else:
            self._answer(200, {"logits": logits.tolist(), "fingerprint": self.server.reference.fingerprint})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        logger.debug(format, *arguments)
