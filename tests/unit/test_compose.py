"""docker-compose.yml starts what supervisord does, and gives nothing away."""

import configparser
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import config

ROOT = Path(config.__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "campaign-dispatcher"}


def programs() -> dict[str, list[str]]:
    """What supervisord starts: words after the interpreter."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    parser.read(ROOT / "config/supervisord.conf")
    return {
        section.removeprefix("program:"): parser[section]["command"].split()[1:]
        for section in parser.sections()
        if section.startswith("program:")
    }


@pytest.mark.parametrize("name", programs())
def test_each_program_is_a_service(name: str) -> None:
    interpreter, *words = SERVICES[name]["command"]
    assert interpreter == "python"
    # files and node names differ, what is run does not
    local = re.compile(r"^(-s|--conf=.*|/.*|%\(ENV.*|.*@%%?h)$")
    assert [w for w in words if not local.match(w)] == [w for w in programs()[name] if not local.match(w)]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_looked_after(name: str) -> None:
    service = SERVICES[name]
    image, tag = service["image"].partition(":")[::2]
    assert image == "campaign-dispatcher" or (tag and tag != "latest")
    assert service["healthcheck"].get("test") or service["healthcheck"] == {"disable": True}
    assert service["restart"] in ("unless-stopped", "no")
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", OURS)
def test_our_processes_have_no_rights_to_spare(name: str) -> None:
    service = OURS[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in service["security_opt"]


def test_no_password_has_a_default() -> None:
    secret = [line for line in TEXT.splitlines() if re.search("PASSWORD|SECRET|_KEY", line) and "${" in line]
    assert len(secret) >= 7
    for line in secret:
        assert re.search(r"\$\{[A-Z_]+:\?", line), line


def test_workers_may_finish_what_is_on_the_wire() -> None:
    workers = [name for name in SERVICES if name.startswith("worker-")]
    assert {SERVICES[name]["stop_grace_period"] for name in workers} == {"45s"}
    assert {SERVICES[name]["stop_signal"] for name in workers} == {"SIGTERM"}


def test_no_password_is_a_word_of_a_command(tmp_path: Path) -> None:
    """What Compose runs for Redis, with a server that writes down what it is told."""
    (tmp_path / "valkey-server").write_text('#!/bin/sh\necho "$@" >words\ncat >configuration\n')
    (tmp_path / "valkey-server").chmod(0o755)
    command = [word.replace("$$", "$") for word in SERVICES["redis"]["command"]]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDIS_PASSWORD": "s3cret"}
    subprocess.run(command, cwd=tmp_path, env=env, check=True, timeout=20)
    assert (tmp_path / "words").read_text().startswith("- --appendonly yes")
    assert "s3cret" not in (tmp_path / "words").read_text()
    assert (tmp_path / "configuration").read_text() == 'requirepass "s3cret"\n'
    for service in SERVICES.values():
        words = " ".join([*service.get("command", []), *service["healthcheck"].get("test", [])])
        assert not re.search(r"(?<!\$)\$\{?\w*(PASSWORD|SECRET|KEY)", words)
