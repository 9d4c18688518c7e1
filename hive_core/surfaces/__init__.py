"""The three surfaces: request type → action, nothing else (SPEC section 4)."""
