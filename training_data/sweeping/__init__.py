"""Asking a model every sample at every scale, and the table that it is written to."""
