"""Whether manifests will be accepted, without a cluster: in layers, each of which says what it finds in sentences."""
