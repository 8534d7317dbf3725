"""Mellea sessions over the one engine."""
