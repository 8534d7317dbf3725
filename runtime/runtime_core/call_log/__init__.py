"""The call log: one row for every attempt at a model, written before the provider is asked and settled after it.

It is the one record behind the ledger, idempotency, the response cache, durable runs and recordings.
"""
