"""Jobs, actions, policy, events and orchestration on top of the engine and the stores."""
