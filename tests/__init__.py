"""The suite: one file per module, time that never passes, and no network beyond loopback."""
