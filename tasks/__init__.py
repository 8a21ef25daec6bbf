"""The Celery edge: an id comes in, one flow verb is called."""
