"""What thinks in a turn: one interface (`base`), and one module for each kind of backend (SPEC section 9)."""
