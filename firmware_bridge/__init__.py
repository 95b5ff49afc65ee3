"""Bytes of the field <-> Fields, and simulated packs that speak them."""
