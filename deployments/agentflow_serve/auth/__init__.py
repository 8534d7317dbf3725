"""Who may call: API keys, their store, and how the edge asks for them."""
