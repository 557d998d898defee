"""Policies, and how their parameters are optimised: from imagined, replayed or an expert's data."""
