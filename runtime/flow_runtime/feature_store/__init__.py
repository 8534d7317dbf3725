"""Feature stores: rows by key, as of a time, by likeness. `protocol` says what one does, `url` which there are."""
