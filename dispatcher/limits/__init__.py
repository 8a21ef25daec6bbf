"""Redis: the pace, kept over all workers."""

from dispatcher.limits.limiter import RedisLimiter

__all__ = ["RedisLimiter"]
