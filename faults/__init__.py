"""`make faults`: the ledger against the provider's own log, while processes die, clients leave and disks fill."""
