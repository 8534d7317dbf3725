"""`make faults`: the ledger against the simulated provider's own log, while processes die, clients leave and disks fill."""
