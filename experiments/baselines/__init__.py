"""Trained baselines: published, and shown on a page."""
