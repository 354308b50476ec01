"""Measured workloads: what is run, how it is counted, and the document that is left of it.

Figures come from a started session's engine and event log. Nothing here prints.
"""
