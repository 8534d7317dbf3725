"""What breaks in practice, found before anything starts: facts gathered at the edge, judged by pure functions."""
