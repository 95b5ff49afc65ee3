"""The flight recorder: raw input kept around what went wrong, exported, replayed, sent up."""
