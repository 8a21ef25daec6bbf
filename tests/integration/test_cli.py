"""The command line by hand: what is typed, what is shown, which exit code; never a traceback."""

import io
import json
import os
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from dispatcher.store.schema import REVISION
from tests.factories import number
from tests.integration.conftest import FILE, Type

ADD = ["account", "add", "x", "--provider", "callfire", "--credentials", "env:CREDENTIALS"]


@pytest.mark.usefixtures("campaign")
def test_a_campaign_by_hand(typed: Type, tmp_path: Path) -> None:
    code, out, _ = typed("campaign", "load", "1", "d.csv", "--json")
    assert (code, json.loads(out)["rows"]) == (0, {"READY": 1, "INVALID": 1, "DUP": 1})
    rejects = (tmp_path / "d.1.rejects.csv").read_text().splitlines()
    assert rejects == [
        "line,raw,e164,state,reason,see",
        "3,n/a,,INVALID,BAD_CHARACTERS,",
        f"4,'{number(1)},{number(1)},DUP,DUPLICATE,line 2",
    ]
    assert "loaded before" in typed("campaign", "load", "1", "d.csv")[1]
    assert "RUNNING" in typed("campaign", "start", "1")[1]
    code, out, _ = typed("campaign", "status", "1", "--json")
    status = json.loads(out)
    assert (status["rows"], status["by_state"]) == (3, {"READY": 1, "DUP": 1, "INVALID": 1})
    assert "1 waiting destinations are DNC now" in typed("dnc", "add", number(1))[1]
    assert typed("dnc", "check", number(1))[0] == 1
    assert "1 removed" in typed("dnc", "remove", number(1))[1]
    assert typed("dnc", "check", number(1)) == (0, "on no list\n", "")
    assert "PAUSED" in typed("campaign", "pause", "1")[1]
    assert "RUNNING" in typed("campaign", "resume", "1")[1]
    assert "ABORTED" in typed("campaign", "abort", "1")[1]
    assert json.loads(typed("campaign", "list", "--json")[1])[0]["state"] == "ABORTED"
    assert json.loads(typed("account", "list", "--json")[1])[0]["credentials"] == "env:CREDENTIALS"
    assert "3 of 3 rows final" in typed("campaign", "status", "1")[1]
    assert typed("verify") == (0, "every invariant holds\n", "")


@pytest.mark.usefixtures("campaign")
def test_a_dry_run_writes_the_report_and_nothing_else(typed: Type, tmp_path: Path) -> None:
    code, out, _ = typed("campaign", "load", "1", "d.csv", "--dry-run", "--json")
    assert (code, json.loads(out)["rows"]) == (0, {"READY": 1, "INVALID": 1, "DUP": 1})
    assert len((tmp_path / "d.1.dry-run.csv").read_text().splitlines()) == 3
    assert not (tmp_path / "d.1.rejects.csv").exists()
    assert json.loads(typed("campaign", "status", "1", "--json")[1])["rows"] == 0
    assert "dry run: nothing was loaded" in typed("campaign", "load", "1", "d.csv", "--dry-run")[1]
    assert json.loads(typed("campaign", "load", "1", "d.csv", "--json")[1])["was_done"] is False


@pytest.mark.usefixtures("campaign")
def test_names_with_brackets_are_only_names(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "c2.toml").write_text(FILE.replace("spring", "x [/y]"))
    assert "x [/y]" in typed("campaign", "create", "c2.toml")[1]
    assert "x [/y]" in typed("campaign", "list")[1]
    (tmp_path / "leads[old].csv").write_text((tmp_path / "d.csv").read_text())
    assert "leads[old].1.rejects.csv" in typed("campaign", "load", "1", "leads[old].csv")[1]
    assert typed("dnc", "add", number(1), "--list", "[/x]")[0] == 0
    assert "[/x]" in typed("dnc", "list")[1]


@pytest.mark.usefixtures("campaign")
def test_an_import_is_in_force_as_it_was_asked_for(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(f"{number(1)}\n(202) 555-0177\n")
    assert "2 numbers in force" in typed("dnc", "import", "l.txt")[1]
    assert "is in force in 'default' already" in typed("dnc", "import", "l.txt")[1]
    code, said, _ = typed("dnc", "remove", number(1))
    assert (code, said) == (0, "1 removed from 'default'\n")
    assert "2 numbers in force" in typed("dnc", "import", "l.txt")[1]
    assert typed("dnc", "check", number(1))[0] == 1
    code, said, _ = typed("dnc", "remove", number(1), "--list", "other")
    assert (code, "still on 'default' for everybody" in said) == (1, True)
    assert typed("dnc", "list", "nothing")[0] == 1


@pytest.mark.usefixtures("campaign")
def test_json_lines_through_stdin_and_a_pipe(typed: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(json.dumps({"Mobile": number(i), "Name": "Ada"}) + "\n" for i in (1, 2)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, out, _ = typed("campaign", "load", "1", "-", "--json")
    assert (code, json.loads(out)["rows"]) == (0, {"READY": 2})
    assert (tmp_path / "stdin.1.rejects.csv").exists()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(lines,))
    writer.start()
    assert json.loads(typed("campaign", "load", "1", "pipe", "--json")[1])["was_done"] is True
    writer.join()


@pytest.mark.usefixtures("campaign")
def test_a_reject_file_that_cannot_be_written(typed: Type) -> None:
    code, _, err = typed("campaign", "load", "1", "d.csv", "--rejects", "/dev/full")
    assert (code, "the load is done, but /dev/full could not be written: No space left" in err) == (1, True)
    assert json.loads(typed("campaign", "status", "1", "--json")[1])["rows"] == 3


@pytest.mark.usefixtures("campaign")
def test_lists_by_hand(typed: Type, tmp_path: Path) -> None:
    typed("campaign", "load", "1", "d.csv")
    (tmp_path / "l.txt").write_text(f"{number(1)}\n(202) 555-0002\n+1900*\n")
    first = "3 numbers are in force; moving waiting destinations to DNC …\n"
    said = (0, "3 numbers in force in 'national', 1 waiting destinations are DNC now\n", first)
    assert typed("dnc", "import", "l.txt", "--list", "national", "--source", "registry of May") == said
    assert "in force in 'national' already" in typed("dnc", "import", "l.txt", "--list", "national")[1]
    code, out, _ = typed("dnc", "check", "+19005550101")
    assert (code, "+1900*" in out, "registry of May" in out) == (1, True, True)
    (tmp_path / "m.txt").write_text(f"phone\n{number(3)}\n")
    assert typed("dnc", "import", "m.txt", "--list", "national", "--replace", "--json")[0] == 0
    assert typed("dnc", "check", number(1))[0] == 0
    assert typed("dnc", "check", number(3))[0] == 1
    assert "1 removed" in typed("dnc", "remove", number(3), "--list", "national")[1]
    assert typed("dnc", "check", number(3))[0] == 0
    assert typed("dnc", "add", number(4), "--campaign", "1", "--channel", "voice", "--expires", "30d")[0] == 0
    (found,) = [x for x in json.loads(typed("dnc", "list", "--json")[1]) if x["scope"] == "campaign"]
    assert (found["scope_id"], found["numbers"], found["channel"]) == (1, 1, "voice")
    assert number(4) in typed("dnc", "list", "default")[1]


@pytest.mark.usefixtures("campaign")
def test_a_list_with_holes_is_refused_unless_asked_for(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(f"{number(1)}\nn/a 5550142\n")
    code, _, err = typed("dnc", "import", "l.txt")
    assert (code, "line 2: BAD_CHARACTERS" in err, "5550142" in err) == (2, True, False)
    assert typed("dnc", "check", number(1))[0] == 0
    assert typed("dnc", "import", "l.txt", "--skip-unreadable")[0] == 0
    assert typed("dnc", "check", number(1))[0] == 1


@pytest.mark.usefixtures("campaign")
def test_an_account_by_hand(typed: Type) -> None:
    assert typed("account", "stop", "main") == (0, "account 'main' is STOPPED\n", "")
    assert "was STOPPED already" in typed("account", "stop", "main")[1]
    assert json.loads(typed("account", "list", "--json")[1])[0]["reason"] == "OPERATOR"
    assert "account resume main" in typed("campaign", "status", "1")[1]
    assert typed("account", "resume", "main") == (0, "account 'main' is OPEN\n", "")
    assert typed("account", "edit", "main", "--cps", "7", "--in-flight-ttl", "90s")[0] == 0
    found = json.loads(typed("account", "list", "--json")[1])[0]
    assert (found["cps"], found["in_flight_ttl"]) == (7, 90)


@pytest.mark.usefixtures("campaign")
def test_the_newest_campaigns_are_listed(typed: Type) -> None:
    def listed(*options: str) -> tuple[list[int], str]:
        code, out, err = typed("campaign", "list", "--json", *options)
        assert code == 0
        return [c["id"] for c in json.loads(out)], err

    assert typed("campaign", "create", "c.toml")[0] == 0
    assert typed("campaign", "abort", "1")[0] == 0
    assert listed() == ([1, 2], "")
    assert listed("--limit", "0") == listed("--limit", "2") == ([1, 2], "")
    newest, err = listed("--limit", "1")
    assert (newest, "there are more" in err) == ([2], True)
    assert listed("--state", "ABORTED") == ([1], "")


@pytest.mark.usefixtures("campaign")
def test_a_request_id_gives_the_same_campaign(typed: Type) -> None:
    ids = [json.loads(typed("campaign", "create", "c.toml", "--request-id", "r", "--json")[1])["id"] for _ in "ab"]
    assert ids[0] == ids[1]


@pytest.mark.usefixtures("campaign")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["campaign", "load", "1", "missing.csv"], 2, "missing.csv cannot be read: No such file"),
        (["campaign", "load", "1", "."], 2, "cannot be read: Is a directory"),
        (["campaign", "load", "9", "d.csv"], 1, "there is no campaign 9; see: dispatcher campaign list"),
        (["campaign", "load", "1", "c.toml"], 2, "no column 'phone', and none"),
        (["campaign", "create", "d.csv"], 2, "is no TOML file"),
        (["campaign", "create", "missing.toml"], 2, "missing.toml cannot be read"),
        (["campaign", "pause", "1"], 1, "only a campaign that is RUNNING can become PAUSED"),
        (["campaign", "status", "9"], 1, "there is no campaign 9"),
        (["dnc", "add", "hello"], 2, "number 1 cannot be read"),
        (["dnc", "add", number(1), "911"], 2, "number 2 cannot be read"),
        (
            ["account", "add", "x", "--provider", "acme", "--credentials", "env:X", "--cps", "1"],
            2,
            "known are callfire",
        ),
        (["account", "add", "x", "--provider", "callfire", "--credentials", "env:NO", "--cps", "1"], 2, "NO with"),
        (["account", "add", "x", "--provider", "callfire", "--credentials", "a:b", "--cps", "1"], 2, "env:NAME"),
        (
            ["account", "add", "main", "--provider", "callfire", "--credentials", "env:CREDENTIALS", "--cps", "1"],
            1,
            "already",
        ),
        (
            ["account", "add", "X!", "--provider", "callfire", "--credentials", "env:CREDENTIALS", "--cps", "1"],
            2,
            "lower-case",
        ),
        (
            ["account", "add", "x", "--provider", "callfire", "--credentials", "env:CREDENTIALS", "--cps", "0"],
            2,
            "more than 0",
        ),
        (["account", "subscribe", "nobody"], 1, "there is no account 'nobody'"),
        (["campaign", "resume", "1"], 1, "is DRAFT; use: dispatcher campaign start 1"),
        (["campaign", "load", "1", "d.csv", "--rejects", "./d.csv"], 2, "is the file that is loaded"),
        (["campaign", "load", "1", "/dev/null"], 2, "is a pipe or device"),
        (["campaign", "status", "1", "--watch", "--json"], 2, "choose --watch or --json"),
        (["dnc", "add", number(1), "--list", ""], 2, "a list needs a name"),
        (["dnc", "add", number(1), "--region", "XX"], 2, "'XX' is no region"),
        (["explain", "1", number(7)], 1, "has no destination with that number (+1202***0007)"),
        (["explain", "1", "hello"], 2, "cannot be read"),
        (["explain", "9", number(1)], 1, "there is no campaign 9"),
        (["export", "9"], 1, "there is no campaign 9"),
        (["export", "1", "--out", "/dev/full/x"], 1, "cannot be written"),
        (["export", "1", "--out", "/dev/full"], 1, "cannot be written: No space left on device"),
        (["export", "1", "--out", "none/x.csv"], 1, "cannot be written: No such file or directory"),
        (["account", "stop", "nobody"], 1, "there is no account 'nobody'"),
        (["account", "edit", "main"], 2, "say what to change"),
        (["account", "edit", "main", "--cps", "0"], 2, "--cps must be"),
        (["dnc", "add", "+1*"], 2, "PREFIX_TOO_SHORT"),
        (["dnc", "add", number(1) + ".0"], 2, "DECIMAL"),
        (["dnc", "add", number(1), "--channel", "fax"], 2, "--channel must be"),
        (["dnc", "add", number(1), "--expires", "2020-01-01"], 2, "--expires must be a date to come"),
        (["dnc", "add", number(1), "--expires", "soon"], 2, "--expires must be a date to come"),
        (["dnc", "add", number(1), "--account", "nobody"], 1, "no account 'nobody'"),
        (["dnc", "add", number(1), "--campaign", "9"], 1, "no campaign 9"),
        (["dnc", "import", "missing.txt"], 2, "missing.txt cannot be read"),
        (["dnc", "import", "/dev/null"], 2, "is a pipe or device"),
        ([*ADD, "--cps", "1", "--option", "campaign_id=x"], 2, "does not look like one"),
        ([*ADD, "--cps", "1", "--option", "api=3"], 2, "must be one of: 2, 1.1"),
        ([*ADD, "--cps", "1", "--option", "colour=red"], 2, "is no option of callfire"),
        (["simulator", "callfire", "--credentials", "token"], 2, "are user:password"),
        (["simulator", "phonon", "--callback", "here"], 2, "--callback must be an http address"),
        ([*ADD, "--cps", "nan"], 2, "--cps must be more than 0"),
        ([*ADD, "--cps", "inf"], 2, "--cps must be more than 0"),
        ([*ADD, "--cps", "1", "--base-url", "ftp://x"], 2, "--base-url must be an address"),
        ([*ADD, "--cps", "1", "--in-flight-ttl", "0s"], 2, "--in-flight-ttl must be longer than 0"),
    ],
)
def test_bad_input(typed: Type, words: list[str], code: int, said: str) -> None:
    found, out, err = typed(*words)
    assert (found, out) == (code, "")
    assert said in err
    assert err.startswith("error: ")


@pytest.mark.usefixtures("campaign")
@pytest.mark.parametrize(
    "content", [b"", b"phone,name\n", b"\x89PNG\r\n\x1a\n\x00", b"phone,name\n1,\xfc\n", b'phone,name\n"']
)
def test_a_file_that_cannot_be_loaded_leaves_nothing(typed: Type, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    code, out, err = typed("campaign", "load", "1", "bad.csv")
    assert (code, out) == (2, "")
    assert "error: " in err
    assert json.loads(typed("campaign", "status", "1", "--json")[1])["rows"] == 0
    assert json.loads(typed("campaign", "load", "1", "d.csv", "--json")[1])["rows"]["READY"] == 1


@pytest.mark.usefixtures("campaign")
def test_doctor_says_what_is_wrong_and_what_to_do(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = typed("doctor", "--json")
    found = {f["what"]: f for f in json.loads(out)}
    assert (code, found["servers"]["is_well"], found["clock"]["is_well"]) == (1, True, True)
    assert (found["account main"]["is_well"], found["web"]["is_well"]) == (True, False)
    monkeypatch.delenv("CREDENTIALS")
    assert "the variable CREDENTIALS" in typed("doctor")[1]
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "redis://127.0.0.1:1")
    assert "Redis cannot be used" in typed("doctor")[1]


def test_a_misspelt_setting_is_refused(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_DATABSE_URL", "x")
    code, _, err = typed("campaign", "list")
    assert (code, "DISPATCHER_DATABSE_URL is no setting" in err) == (2, True)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DISPATCHER_DATABASE_URL", "nonsense"),
        ("DISPATCHER_DATABASE_URL", "mysql://h/x"),
        ("DISPATCHER_DATABASE_URL", "postgresql://u:pw@h:abc/x"),
        ("DISPATCHER_REDIS_URL", "http://x"),
        ("DISPATCHER_REDIS_URL", "redis://localhost:abc"),
        ("DISPATCHER_WEB__PORT", "99999"),
        ("DISPATCHER_WEB__PROT", "1"),
        ("DISPATCHER_LOG_LEVEL", "LOUD"),
        ("DISPATCHER_DIAL__LEASE_S", "20"),
    ],
)
def test_settings_that_cannot_be(typed: Type, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    code, _, err = typed("campaign", "list")
    assert code in (1, 2)
    assert variable.split("__")[0] in err
    assert err.count("\n") == 1


def test_one_url_without_the_other(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHER_REDIS_URL")
    assert typed("campaign", "list")[0] == 1


def test_a_database_that_was_not_migrated(typed: Type, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0017'")
    code, _, err = typed("campaign", "list")
    assert (code, "run: dispatcher migrate" in err) == (1, True)


def test_servers_that_are_away(typed: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", f"unix://{tmp_path}/none?db=0")
    code, _, err = typed("campaign", "list")
    assert (code, "DISPATCHER_REDIS_URL" in err) == (1, True)
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", f"postgresql://dispatcher@/postgres?host={tmp_path}")
    code, _, err = typed("campaign", "list")
    assert (code, "DISPATCHER_DATABASE_URL" in err) == (1, True)


def test_verify_names_the_culprit(typed: Type, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO counter VALUES (77, 'row', 'READY', 1)")
    code, out, _ = typed("verify")
    assert code == 1
    assert "I15" in out
    assert "campaign 77 READY" in out


def test_migrate_says_what_it_did(typed: Type) -> None:
    assert typed("migrate") == (0, f"the schema is {REVISION} already\n", "")
    assert typed("version")[0] == 0
