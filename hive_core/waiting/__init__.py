"""Everything that waits for the operator, in one queue (SPEC sections 8 to 11)."""
