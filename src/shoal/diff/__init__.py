"""Differences of two models in, small integers or update files out, and back: rotation, quantisation, the codecs."""
