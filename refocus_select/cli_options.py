"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


def add_exact(parser: argparse.ArgumentParser) -> None:
    """Add `--exact` and `--no-exact`; None if neither is given."""
    parser.add_argument(
        "--exact",
        action=argparse.BooleanOptionalAction,
        help="read exactly the candidate frames (default); --no-exact takes near keyframes instead: faster, true times",
    )
    parser.add_argument("--snap", action=_Renamed, nargs=0, help=argparse.SUPPRESS, to="--no-exact")


def add_sample_fps(parser: argparse.ArgumentParser) -> None:
    """Add `--sample-fps`."""
    parser.add_argument("--sample-fps", type=float, metavar="R", help="pictures per second of a folder (default: 1)")


def add_no_network(parser: argparse.ArgumentParser) -> None:
    """Add `--no-network`; see `refocus_select.locations.check_offline` and `selectors.registry.offline_arguments`."""
    parser.add_argument(
        "--no-network",
        action="store_true",
        help="refuse URLs; of selectors and encoders on the Hub, use only what is in the local cache",
    )


def add_encoder(parser: argparse._ActionsContainer) -> None:
    """Add `--encoder`."""
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="dual encoder of a selector that reads vectors: a folder, a Hub id, open_clip:NAME/TAG, module:attribute",
    )


def add_words(
    parser: argparse._ActionsContainer,
    *,
    default: str | list[str],
    choices: tuple[str, ...] | None = None,
    nargs: str | None = None,
) -> None:
    """Add `--words`, `--ocr`, `--transcribe` and `--language`; a file is taken where there are no `choices`."""
    auto = "'auto': transcripts beside the videos or in them, if there; 'off' (default: %(default)s)"
    parser.add_argument(
        "--words",
        default=default,
        choices=choices,
        nargs=nargs,
        metavar="FILE" if choices is None else "|".join(choices),
        help=auto if choices else f"transcript of the video; {auto}",
    )
    parser.add_argument("--ocr", action="store_true", help="read the text in the pictures (extra: ocr)")
    parser.add_argument(
        "--transcribe", metavar="MODEL", help="listen where no transcript is found: a Hub id, or faster-whisper:small"
    )
    parser.add_argument("--language", metavar="CODE", help="which subtitles are preferred, e.g. en")


class _Renamed(argparse.Action):
    """An option of before, refused with its new name."""

    def __init__(self, *args: Any, to: str, **kwargs: Any) -> None:
        kwargs["default"] = argparse.SUPPRESS
        super().__init__(*args, **kwargs)
        self._to = to

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option: str | None = None
    ) -> NoReturn:
        parser.error(f"{option} is called {self._to} now")
