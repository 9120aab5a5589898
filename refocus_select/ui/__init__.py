"""A page in the browser (extra `ui`): `refocus-select ui`. See docs/page.md."""
