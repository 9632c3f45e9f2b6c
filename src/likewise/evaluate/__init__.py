"""Measuring a model: samples so far."""

from likewise.evaluate.sample import sample

__all__ = ["sample"]
