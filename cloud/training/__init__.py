"""Learning models from lives: needs the extra `train`. The API and the ingest never import it."""
