"""What a session on tools.sock bounds; apart from its transport for clients, which loads the whole SDK."""

LINE_MAX_BYTES = 4 * 1024 * 1024  # a 256 KiB body, escaped as badly as JSON allows, fits
CALLS_MAX = 32  # of one session at once
LINGER_SECONDS = 5.0  # for the last answers, once the client has nothing more to ask
