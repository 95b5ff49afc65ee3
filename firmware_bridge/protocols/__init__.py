"""The languages of BMSs, a file each. `firmware_bridge/shelf.py` knows them by name."""
