"""Metrics: the catalogue of families, where their values come from, the text that is printed, and its server.

family.py    every family: name, type, labels, help         (docs/metrics.md is made from it)
collect.py   counts of the root, reports of its nodes ──▶ samples
text.py      samples ──▶ Prometheus text format 0.0.4
serve.py     the text over HTTP, on the loopback interface unless told otherwise
"""
