"""Policy: `rules` says what may be written, `decide` what follows, `engine` asks people where a rule wants that."""
