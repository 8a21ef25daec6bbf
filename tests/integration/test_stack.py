"""`down` stops only what `up` started."""

import subprocess
from pathlib import Path

from dispatcher.cli.stack import Stack, stop_stack


def test_a_stranger_with_the_old_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        stop_stack(Stack(stranger.pid, str(tmp_path / "run"), "http://x", "logs"))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
