"""CallFire, API v2 (JSON)."""
