"""Trained networks at work: the fast form, data sets, pictures and videos, export to other programs."""
