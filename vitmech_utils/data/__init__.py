"""Chirps, the figures that carry them, and the datasets made of both."""
