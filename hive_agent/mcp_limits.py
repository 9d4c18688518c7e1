"""What the transport of tools.sock bounds; apart from it, since the transport loads the whole SDK."""

LINE_MAX_BYTES = 4 * 1024 * 1024  # a 256 KiB body, escaped as badly as JSON allows, fits
