"""Plugins: what an installed package adds to the runtime, `plugin` as code and `registry` as a choice of them."""
