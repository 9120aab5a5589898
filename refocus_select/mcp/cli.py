"""The command `refocus-select mcp`."""

from __future__ import annotations

import argparse
import ipaddress

from ..errors import AccessError, MissingDependencyError
from ..service.options import add_service_options, service_of

_DESCRIPTION = """\
Serve the tools find_frames, look_at, timeline, describe_video and search to an agent, by the Model Context Protocol:
over standard input and output (the agent starts this command itself), or with --http over HTTP on this machine.

Only videos below --root (by default the working folder) are read; addresses, folders and Hub ids of further selectors
only if an option names them. Whatever is refused says which option allows it."""

_EXAMPLES = """\
examples:
  refocus-select mcp --root ~/videos
  claude mcp add videos -- refocus-select mcp --root ~/videos
  refocus-select mcp --root ~/videos --http --port 8321        # then http://127.0.0.1:8321/mcp"""


def add_mcp(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `mcp`."""
    parser = commands.add_parser(
        "mcp",
        help="serve agents: frames of your videos by the Model Context Protocol",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--http", action="store_true", help="streamable HTTP instead of standard input and output")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at, of this machine (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8321, help="(default: %(default)s)")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME[:PORT]",
        help="further name under which clients reach the server, behind a proxy with its own authentication",
    )  # fmt: skip
    add_service_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="more messages on standard error")
    parser.set_defaults(run=_serve)


def check_loopback(host: str) -> None:
    """Refuse an address that other machines reach: there is no authentication.

    Raises:
        AccessError: naming the way out.
    """
    try:
        inside = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise AccessError(
            f"--host {host}: the server has no authentication and listens at 127.0.0.1, ::1 or localhost only; put a "
            "proxy with authentication in front, and name it by --allow-host"
        )


def _serve(arguments: argparse.Namespace) -> int:
    check_loopback(arguments.host)
    try:
        from mcp.server.transport_security import TransportSecuritySettings

        from .server import build_server
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "pydantic", "anyio", "starlette"):
            raise
        raise MissingDependencyError("the server needs the MCP SDK: pip install 'refocus-select[mcp]'") from error
    with service_of(arguments) as service:
        server = build_server(service)
        if not arguments.http:
            server.run("stdio")
            return 0
        names = ["127.0.0.1:*", "localhost:*", "[::1]:*", *arguments.allow_host]
        origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in names]
        server.run(
            "streamable-http",
            host=arguments.host.strip("[]"),
            port=arguments.port,
            transport_security=TransportSecuritySettings(allowed_hosts=names, allowed_origins=origins),
        )
    return 0
