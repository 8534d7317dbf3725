"""`make fuzz`: mutated flows, requests and small languages, which may be refused but never break anything."""
