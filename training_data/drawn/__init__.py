"""The drawn corpus: pictures, questions about them, and what only their maker knows."""
