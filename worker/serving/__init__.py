"""Desired against loaded: which revision answers for which name."""
