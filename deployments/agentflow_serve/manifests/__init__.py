"""From a plan and settings to Kubernetes documents: pure builders, and one edge that reads and one that writes."""
