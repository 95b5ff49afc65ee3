"""The HTTP API: devices' uploads, the earlier system's endpoints, packs, the live stream, the page."""
