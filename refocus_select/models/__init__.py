"""The networks.

The ReFoCUS policy in reading order: config, preprocess, vision, prompt, mamba2, backbone, pointer, refocus.
"""
