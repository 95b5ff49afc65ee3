"""Mapping help: a mapping for a DBC that nobody has mapped, with the evidence for it."""
