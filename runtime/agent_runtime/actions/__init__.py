"""Actions: questions to the world outside, on which a job waits until somebody resolves them."""
