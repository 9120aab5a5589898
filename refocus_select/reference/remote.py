"""Reference models elsewhere: a client with many questions in flight, against our server or one that speaks OpenAI's.

Which server answers is decided by the question (rendezvous hashing), so that the frames of a video are encoded by one
of them; a server that does not answer is tried again and then replaced by the next. Lost servers cost retries, not the
run: only when all have been silent for `patience` seconds an error ends it, and the same command resumes.

Determinism: with `refocus-select serve-reference` logits do not depend on which server answers, if all serve the same
weights on the same kind of device; that they do is checked by their fingerprints. A server for OpenAI's API may batch
questions as they come in, and its last digits then differ between two runs: training resumes, but not to the bit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from string import ascii_uppercase
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as HTTPRequest
from urllib.request import urlopen

import torch
from torch import Tensor

from ..errors import InputError, ReferenceServerError, VideoDecodeError
from ..questions import multiple_choice
from .base import ReferenceModel, Request
from .wire import data_url, packed

logger = logging.getLogger(__name__)

_LOST = (OSError, HTTPException, json.JSONDecodeError)  # refused, too late, cut off, half an answer


class Unavailable(Exception):
    """A server does not answer now, and may later."""


class RemoteReference(ReferenceModel):
    """Asks servers over HTTP.

    Attributes:
        retries: requests that had to be sent again so far.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        in_flight: int = 32,
        timeout: float = 300.0,
        patience: float = 1800.0,
        pause: float = 1.0,
    ) -> None:
        """Reach the servers.

        Args:
            urls: of one or several servers, each of the same model.
            in_flight: requests that wait for an answer at once.
            timeout: seconds for an answer.
            patience: seconds without any answer, from whichever server, after which it is an error.
            pause: seconds before a silent server is tried again; doubles up to a minute.

        Raises:
            InputError: for numbers that are not positive, or servers of different models.
            ReferenceServerError: if no server can be reached.
        """
        self.urls = [url.rstrip("/") for url in ([urls] if isinstance(urls, str) else urls)]
        if not self.urls or in_flight < 1 or min(timeout, patience, pause) <= 0:
            raise InputError("reference.url needs an address, and in_flight, timeout, patience and pause above 0")
        self._in_flight, self._timeout, self._patience, self._pause = in_flight, timeout, patience, pause
        self._pool = ThreadPoolExecutor(in_flight, "reference")
        self.retries = 0
        self.name, self.fingerprint = self._identity()

    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        """See `ReferenceModel`.

        Raises:
            ReferenceServerError: if no server answers for too long.
        """
        return asyncio.run(self._all(requests))

    async def _all(self, requests: Sequence[Request]) -> list[Tensor]:
        gate = asyncio.Semaphore(self._in_flight)
        self._answered = time.monotonic()
        jobs = [asyncio.ensure_future(self._request(request, gate)) for request in requests]
        try:
            return list(await asyncio.gather(*jobs))
        finally:
            for job in jobs:
                job.cancel()

    @abstractmethod
    async def _request(self, request: Request, gate: asyncio.Semaphore) -> Tensor:
        """Logits of one request, [N, options]."""

    @abstractmethod
    def _identity(self) -> tuple[str, str]:
        """Name and fingerprint of the model."""

    async def ask(self, path: str, content: Any, of: str, gate: asyncio.Semaphore) -> dict[str, Any]:
        """Send content to a server until one answers.

        Args:
            path: behind the address of the server.
            content: for JSON.
            of: what decides which server is asked first.
            gate: bounds the requests in flight.
        """
        body = json.dumps(content).encode()
        order = sorted(self.urls, key=lambda url: hashlib.sha256(f"{url} {of}".encode()).digest())
        tries = 0
        while True:
            url = order[tries % len(order)]
            try:
                async with gate:
                    answer = await self._apart(_exchange, url + path, body, self._timeout)
                self._answered = time.monotonic()
                return answer
            except (Unavailable, *_LOST) as error:
                silent = time.monotonic() - self._answered
                if silent > self._patience:
                    raise ReferenceServerError(
                        f"no reference server has answered for {silent:.0f} s ({', '.join(self.urls)}; the last error: "
                        f"{error}); start them again and repeat the command, the run resumes"
                    ) from error
                tries += 1
                self.retries += 1
                logger.warning("reference server %s: %s; trying again", url, error)
                if tries % len(order) == 0:  # all of them were tried
                    pause = min(60.0, self._pause * 2 ** min(10, tries // len(order) - 1))
                    await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _apart(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def _get(self, path: str) -> list[dict[str, Any]]:
        """What every server that can be reached says of itself."""
        found, errors = [], []
        for url in self.urls:
            try:
                found.append(_exchange(url + path, None, min(self._timeout, 30.0)))
            except (Unavailable, *_LOST) as error:
                errors.append(f"{url}: {error}")
        if not found:
            raise ReferenceServerError(
                f"no reference server can be reached ({'; '.join(errors)}); start one with `refocus-select "
                "serve-reference MODEL`, and check reference.url"
            )
        return found


class ServedReference(RemoteReference):
    """A reference model behind `refocus-select serve-reference`: its exact option logits."""

    def _identity(self) -> tuple[str, str]:
        found = self._get("/")
        identities = {str(one.get("fingerprint")) for one in found}
        if len(identities) > 1 or "None" in identities:
            raise InputError(f"the servers of reference.url serve different models: {', '.join(sorted(identities))}")
        return str(found[0]["name"]), identities.pop()

    async def _request(self, request: Request, gate: asyncio.Semaphore) -> Tensor:
        answer = await self.ask("/logits", packed(request), request.clip.key, gate)
        if answer.get("fingerprint") != self.fingerprint:
            raise InputError(f"a reference server was started again with another model; expected is {self.name}")
        return torch.tensor(answer["logits"], dtype=torch.float32)


class OpenAIReference(RemoteReference):
    """A vLLM server, or another one for OpenAI's chat completions: log-probabilities of the option letters.

    One message per subset: its frames as pictures, each behind its time, then the question with lettered options. Of
    the first word of the answer the `top_logprobs` likeliest are told; a letter that is not among them gets the
    smallest log-probability told, less one, so that its rank is known but not its value. Logits are known up to a
    constant of each subset, which cancels in every reward.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        model: str,
        top_logprobs: int = 20,
        size: tuple[int, int] | None = None,
        **how: Any,
    ) -> None:
        """Reach the servers.

        Args:
            urls: without "/v1".
            model: its name on the server.
            top_logprobs: vLLM allows 20 unless told otherwise (`--max-logprobs`).
            size: (height, width) at which frames are sent; the video's own by default.
            **how: see `RemoteReference`.

        An API key is read from the environment variable REFOCUS_REFERENCE_KEY.
        """
        self.model, self._top, self._size = model, top_logprobs, size
        super().__init__(urls, **how)

    def _identity(self) -> tuple[str, str]:
        names = {str(one.get("id")) for answer in self._get("/v1/models") for one in answer.get("data", [])}
        if self.model not in names:
            raise InputError(f"the server has no model {self.model!r}; it has {', '.join(sorted(names))}")
        facts = json.dumps([self.model, self._top, self._size, 1])
        return self.model, f"openai-{hashlib.sha256(facts.encode()).hexdigest()[:24]}"

    async def _request(self, request: Request, gate: asyncio.Semaphore) -> Tensor:
        rows = [self._subset(request, row, gate) for row in request.subsets]
        return torch.stack(list(await asyncio.gather(*rows)))

    async def _subset(self, request: Request, row: Tensor, gate: asyncio.Semaphore) -> Tensor:
        question = request.question
        async with gate:  # pictures of waiting requests would fill the memory
            content = await self._apart(self._message, request, row)
        answer = await self.ask("/v1/chat/completions", content, request.clip.key, gate)
        try:
            told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = {str(one["token"]).strip().upper(): float(one["logprob"]) for one in reversed(told)}
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"the server gave no log-probabilities for question {question.id}; start it with log-probabilities "
                "allowed (vLLM: --max-logprobs 20)"
            ) from error
        least = min((v for v in (float(one["logprob"]) for one in told) if math.isfinite(v)), default=0.0) - 1.0
        letters = ascii_uppercase[: len(question.options)]
        return torch.tensor([found.get(letter, least) for letter in letters], dtype=torch.float32)

    def _message(self, request: Request, row: Tensor) -> dict[str, Any]:
        positions = row.numpy()
        pictures = request.clip.pictures(positions, size=self._size)
        parts: list[dict[str, Any]] = []
        for time_of, picture in zip(request.clip.timestamps[positions], pictures, strict=True):
            parts.append({"type": "text", "text": f"{time_of:.1f} s:"})
            parts.append({"type": "image_url", "image_url": {"url": data_url(picture)}})
        parts.append({"type": "text", "text": multiple_choice(request.question)})
        return {
            "model": self.model, "messages": [{"role": "user", "content": parts}], "max_tokens": 1, "temperature": 0.0,
            "logprobs": True, "top_logprobs": self._top, "seed": 0,
        }  # fmt: skip


def _exchange(address: str, body: bytes | None, timeout: float) -> dict[str, Any]:
    """One request and its answer.

    Raises:
        Unavailable: if the server is overloaded or out of order.
        VideoDecodeError: if the server cannot read the video.
        InputError: if the server refuses the request.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(f"reference.url must start with http:// or https://, not {address!r}")
    headers = {"Content-Type": "application/json", **_authorisation()}
    try:
        with urlopen(HTTPRequest(address, body, headers), timeout=timeout) as answer:
            content = json.loads(answer.read())
    except HTTPError as error:
        told = error.read().decode(errors="replace")[:500]
        if error.code in (408, 425, 429) or error.code >= 500:
            raise Unavailable(f"status {error.code}: {told}") from error
        if '"unreadable": true' in told:
            raise VideoDecodeError(f"the reference server cannot read the video: {told}") from error
        raise InputError(f"the reference server refuses the request (status {error.code}): {told}") from error
    if not isinstance(content, dict):
        raise Unavailable("the answer is no JSON object")
    return content


def _authorisation() -> dict[str, str]:
    key = os.environ.get("REFOCUS_REFERENCE_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
