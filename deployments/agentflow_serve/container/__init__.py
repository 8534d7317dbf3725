"""The context of a container image for one flow: only what that flow needs, every file of it pinned."""
