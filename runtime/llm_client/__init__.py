"""One engine for every model call."""
