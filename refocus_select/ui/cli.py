"""The command `refocus-select ui`."""

from __future__ import annotations

import argparse
import logging

from ..errors import AccessError, MissingDependencyError
from ..mcp.cli import check_loopback
from ..service.options import add_service_options, service_of

_DESCRIPTION = """\
Serve a page at http://127.0.0.1:7860: drop a video, ask a question, see the frames that answer it beside those of
another selector, play the video at their times, export them. Videos below --root can be chosen from a list."""


def add_ui(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `ui`."""
    parser = commands.add_parser(
        "ui",
        help="a page in the browser: drop a video, ask, see why",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further name by which browsers reach the page",
    )
    add_service_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        check_loopback(arguments.host)
    except AccessError:
        if not arguments.allow_host:
            raise AccessError(
                f"--host {arguments.host}: other machines could use the page without a password; if that is meant, "
                "give the name by which they reach it with --allow-host"
            ) from None
    try:
        import gradio
        import uvicorn
        from fastapi import FastAPI
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise MissingDependencyError("the page needs Gradio: pip install 'refocus-select[ui]'") from error
    from .page import LAUNCH, build_page

    with service_of(arguments) as service:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", *arguments.allow_host]
        )
        limit = service.access.max_bytes
        gradio.mount_gradio_app(app, build_page(service), path="/", max_file_size=limit, ssr_mode=False, **LAUNCH)
        level = logging.INFO if arguments.verbose else logging.WARNING
        print(f"http://{arguments.host}:{arguments.port}", flush=True)
        uvicorn.run(app, host=arguments.host.strip("[]"), port=arguments.port, log_level=level)
    return 0
