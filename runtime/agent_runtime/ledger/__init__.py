"""The ledger: what every call may cost is reserved before it is made, and settled after it, in one place for all."""
