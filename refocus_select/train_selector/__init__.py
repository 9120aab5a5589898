"""Training of frame selection policies by reinforcement learning, after ReFoCUS (arXiv 2506.01274)."""
