"""A fleet for real: Redis and PostgreSQL servers, workers as processes, the emulator over TCP."""
