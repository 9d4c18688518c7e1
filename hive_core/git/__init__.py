"""Git with hostile input: packs and commits that an agent made (SPEC section 6, SECURITY 6)."""
