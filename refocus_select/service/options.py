"""Options of the commands that serve videos: what may be read, how much, and by which selectors."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..cache import parse_size
from ..errors import InputError
from ..weights import DEFAULT_SELECTOR

if TYPE_CHECKING:
    from .service import VideoService


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Add what `service_of` reads."""
    allowed = parser.add_argument_group("what may be read")
    allowed.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose videos may be read, repeatable (default: the working folder)",
    )
    allowed.add_argument(
        "--allow-url",
        action="append",
        default=[],
        metavar="URL",
        help="beginning of addresses that may be downloaded, repeatable (default: none)",
    )
    models = parser.add_argument_group("selectors")
    models.add_argument(
        "--selector",
        action="append",
        default=[],
        metavar="NAME",
        help=f"the default one (default: {DEFAULT_SELECTOR}); repeated, folders and Hub ids that may be asked for",
    )
    models.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="NAME",
        help="dual encoder: a folder, a Hub id, …; repeatable, the first is the default",
    )
    models.add_argument("--device", help="device of the selectors, e.g. cuda (default: automatic)")
    limits = parser.add_argument_group("limits")
    for name, kind, default, letter, told in (
        ("--max-size", str, "16GB", "SIZE", "largest file"),
        ("--max-duration", float, 6 * 3600.0, "S", "longest video, or part of one, in seconds"),
        ("--max-frames", int, 64, "K", "most pictures of one answer"),
        ("--max-concurrent", int, 2, "N", "requests that are worked on at once"),
        ("--timeout", float, 600.0, "S", "seconds that a request may take"),
        ("--memory", str, "1GB", "SIZE", "encodings that are kept between requests"),
    ):
        limits.add_argument(name, type=kind, default=default, metavar=letter, help=f"{told} (default: %(default)s)")


def service_of(arguments: argparse.Namespace) -> VideoService:
    """The service that the options describe.

    Raises:
        InputError: if a limit is not positive, or a size none.
        AccessError: if a root or an address cannot be used.
    """
    from .access import Access
    from .service import EMBEDDED, Limits, VideoService

    for name in ("max_duration", "max_frames", "max_concurrent", "timeout"):
        if not getattr(arguments, name) > 0:
            raise InputError(f"--{name.replace('_', '-')} must be above 0, not {getattr(arguments, name)}")
    selectors = [os.fspath(name) for name in arguments.selector] or [DEFAULT_SELECTOR]
    limits = Limits(
        max_duration=arguments.max_duration,
        max_frames=arguments.max_frames,
        timeout=arguments.timeout,
        max_concurrent=arguments.max_concurrent,
        memory=parse_size(arguments.memory),
    )
    return VideoService(
        Access.below(arguments.root, arguments.allow_url, max_bytes=parse_size(arguments.max_size)),
        selector=selectors[0],
        more_selectors=selectors[1:],
        encoders=arguments.encoder or [EMBEDDED],
        limits=limits,
        device=arguments.device,
    )
