"""Where agents run: one interface, one implementation for each kind of container (SPEC section 7)."""
