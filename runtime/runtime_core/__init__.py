"""The leaf of the runtime: errors, contexts, clock and ids, the base of all stores, the one run loop.

Import from the modules: `runtime_core.errors`, `.context`, `.clock`, `.ids`, `.report`, `.stores`.
"""
