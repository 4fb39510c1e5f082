"""Hints that an adapter may have changed, and the proof that they still flow."""
