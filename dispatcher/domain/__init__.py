"""The pure core: what may be dialled, what news means, what happens next. No clock, no I/O, no logging."""
