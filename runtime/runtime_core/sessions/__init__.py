"""Conversations that outlive a run: what is kept of them, and where.

Import from the modules: `runtime_core.sessions.records`, `.protocol`.
"""
