"""Extracts the vocabularies of the five vendor documents, once: python tests/data/extract_words.py FOLDER

Writes words.json beside itself: words and codes only, by document and table. The tests read that file.
"""

import json
import re
import sys
from pathlib import Path


def main(folder: Path) -> None:
    texts = {path.name[:3]: path.read_text() for path in sorted(folder.glob("*.txt"))}
    words = {
        "000 results page": _results_page(texts["000"]),
        "001 fortytwo": _fortytwo(texts["001"]),
        "002 notifications": _notifications(texts["002"]),
        "003 get call": _get_call(texts["003"]),
        "004 phonon": _phonon(texts["004"]),
    }
    out = Path(__file__).with_name("words.json")
    out.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n")


def _headings(text: str) -> list[str]:
    return [line.rstrip(":") for line in text.splitlines() if re.fullmatch(r"[A-Z][A-Z ]+:?", line.strip())]


def _results_page(text: str) -> dict[str, list[str]]:
    states, results = text.split("Result Options")
    results, codes = results.split("Responses Status Codes")
    titles = {"RESULTS, RESPONSES, AND ERROR CODES", "RESULTS FOR BOTH CALL AND TEXT"}
    return {
        "state": [h for h in _headings(states) if h not in titles],
        "result": [h for h in _headings(results) if h not in titles],
        "http": re.findall(r"^(\d{3}), ", codes, re.MULTILINE),
    }


def _fortytwo(text: str) -> dict[str, list[str]]:
    rows = re.findall(r"\| (-\d+) \| \d{3} \|", text)
    return {
        "api": [*rows, *sorted(set(re.findall(r"(-?\d+) = (?:success|not authorized)", text)), reverse=True)],
        "http": sorted({*re.findall(r"^(\d{3}) \|", text, re.MULTILINE), *re.findall(r"\| – \| (\d{3}) \|", text)}),
        "status": sorted(set(re.findall(r'"status": "(\w+)"', text))),
        "cause": sorted(set(re.findall(r'"error_(?:code|description)": "?(\w+)', text))),
    }


def _notifications(text: str) -> dict[str, list[str]]:
    return {
        "trigger": re.findall(r"\d\. ([A-Z]+_[A-Z_]+)", text),
        "format": re.findall(r"\d\. (XML|JSON|EMAIL)\b", text),
        "state": sorted(set(re.findall(r"State[\">: ]+(\w+)", text))),
        "result": sorted(set(re.findall(r"Result[\">: ]+([A-Z_]{2,})", text))),
        "broadcast": sorted(set(re.findall(r'"Status": "(\w+)"', text))),
        "root": sorted({*re.findall(r"<n:(\w+) xmlns", text), *re.findall(r'^    "(\w+)": \{', text, re.MULTILINE)}),
    }


def _get_call(text: str) -> dict[str, list[str]]:
    (states,) = re.findall(r"Current State of Action\[([A-Z_, ]+)\]", text)
    results = re.findall(r"Result \[([A-Z_, ]+)\] Result", text)
    return {
        "state": states.split(", "),
        "result": sorted({word for row in results for word in row.split(", ")}),
    }


def _phonon(text: str) -> dict[str, list[str]]:
    marks = {
        "flow": "\nFlow Status\n",
        "connection": "\nCall Connection Status\n\nSr. No",
        "sms": "\nSMS Status\n\nSr. No",
        "email": "\nEmail Status\n\nSr. No",
        "agent": "\nAgent Statuses\n",
    }
    starts = [*(text.index(mark) for mark in marks.values()), len(text)]
    parts = {name: text[a:b] for name, a, b in zip(marks, starts, starts[1:], strict=False)}
    tables = {
        name: re.findall(r"^\d+\n\n(\S[^\n]*)$", part, re.MULTILINE) for name, part in parts.items() if name != "agent"
    }
    agents = re.findall(r"^(\w+)$", parts["agent"].split("Meaning")[1], re.MULTILINE)
    return {**tables, "agent": agents}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
