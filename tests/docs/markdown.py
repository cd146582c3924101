"""Reads Markdown pages: headings and their anchors, links, code, commands. Only what this project's pages use."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple


class Page(NamedTuple):
    """A page by kind of line: `prose` (tables included) and `code` (fenced blocks), each (line number, text)."""

    path: Path
    prose: list[tuple[int, str]]
    code: list[tuple[int, str]]


def read_page(path):
    prose, code, fenced = [], [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        else:
            (code if fenced else prose).append((number, line))
    return Page(path, prose, code)


def slug(heading):
    """GitHub's anchor of a heading: markup removed, lower case, punctuation dropped, spaces to hyphens."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def anchors(page):
    """The anchors of a page; a heading that occurs again has -1, -2 ... added."""
    found, counts = set(), {}
    for _, line in page.prose:
        if match := re.match(r"#{1,6} +(.*?) *#*$", line):
            name = slug(match[1])
            found.add(f"{name}-{counts[name]}" if name in counts else name)
            counts[name] = counts.get(name, 0) + 1
    return found


def links(page):
    """Targets of links and pictures, as (line number, target); outside code."""
    for number, line in page.prose:
        bare = re.sub(r"`[^`]*`", "", line)
        yield from ((number, match) for match in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", bare))
        yield from ((number, match) for match in re.findall(r"<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"]+)\"", bare))


def quoted(page):
    """The spans between backticks, as (line number, text); a span may run over the end of a line."""
    lines = "\n".join(line for _, line in page.prose).split("`")
    numbers = [number for number, _ in page.prose]
    row = 0
    for index, part in enumerate(lines):
        if index % 2:
            yield numbers[row], " ".join(part.split())
        row += part.count("\n")


def shell_lines(page):
    """Lines of fenced blocks, joined where a backslash ends one, cut at && and without comments."""
    joined, start = "", 0
    for number, line in page.code:
        start = start if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        for command in joined.split("&&"):
            yield start, re.sub(r"(^|\s)#.*", "", command).strip()
        joined = ""


def main_commands(page):
    """Arguments of each `python main.py ...`, as (line number, list). `[...]` marks what may be given: it is."""
    whole = [*shell_lines(page), *quoted(page)]
    for number, line in whole:
        if line.startswith("python main.py"):
            yield number, shlex.split(re.sub(r"[\[\]]", " ", line))[2:]
