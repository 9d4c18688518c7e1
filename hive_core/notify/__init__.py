"""Telling the operator, on other devices, that something waits: by Apprise (ntfy, mail, Matrix, and more)."""
