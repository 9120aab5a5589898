"""Real clips joined at random, and natural questions about them: see compose.py."""
