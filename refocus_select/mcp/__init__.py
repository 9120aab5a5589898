"""The MCP server (extra `mcp`): `refocus-select mcp`. See docs/agents.md."""
