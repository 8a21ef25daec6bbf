"""Files of destinations and numbers on this machine."""

import asyncio
from pathlib import Path

from dispatcher.sources.blocks import open_blocks
from dispatcher.sources.records import STDIN, content_digest, open_numbers, open_records, regular_file

__all__ = ["STDIN", "Files", "content_digest", "open_blocks", "open_numbers", "open_records", "regular_file"]


class Files:
    """The Sources port."""

    blocks = staticmethod(open_blocks)

    async def digest(self, path: Path) -> str:
        """As `content_digest`, in a thread."""
        return await asyncio.to_thread(content_digest, path)
