"""Benchmarks: each prints ratios against a reference measured in the same run. None of them is a timed test."""
