"""The demo world: a small town with a hidden true preference, its base model and its users (no network needed)."""
