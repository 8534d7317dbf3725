"""Who serves a request: any-llm through llmhub_runtime, and nothing else."""
