"""What happens in the runtime, as events: `types` says what one is, `bus` who hears it, `memory` is a bus."""
