"""`promptq up`: the whole service on this machine, in the foreground, under a supervisor."""
