"""Tests of the selection algorithms."""
