"""Benchmarks and own data as records of pictures, questions and right answers."""
