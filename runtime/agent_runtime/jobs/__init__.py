"""Jobs: `records` says what one is, `machine` what may happen to it, `store` where it is kept, `manager` runs it."""
