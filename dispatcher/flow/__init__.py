"""The journey, one verb a file. No SQL, no HTTP, no Celery, no clock but the one it is given."""
