"""Messages in the documents. `If you see` stands before a message that a document quotes; `...` stands in a quote for
what differs from case to case.
"""

import ast
import functools
import re

import pytest

from tests.made import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("common", "data", "formats", "model", "train", "inference", "evaluation")
FIELD = "\0"  # in place of a field of an f-string


def quoted_messages(text: str) -> list[str]:
    """If you see `a` or `b`: ... -> [a, b]"""
    quotes = re.findall(r"[Ii]f you see ((?:`[^`]+`(?:,| or)? ?)+)", " ".join(text.split()))
    return [message for quote in quotes for message in re.findall(r"`([^`]+)`", quote)]


@functools.cache
def printable_texts() -> list[str]:
    """The texts in the source that can reach a user: all but docstrings."""
    texts = []
    for path in [*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), ROOT / "eval_segswap.py"]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else FIELD for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                texts.append(node.value)
    return texts


def is_printed(message: str) -> bool:
    pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
    return any(map(pattern.search, printable_texts()))


def test_the_documents_quote_messages():
    assert sum(len(quoted_messages(path.read_text())) for path in DOCUMENTS) >= 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_message_that_a_document_quotes_is_one_that_the_code_prints(document):
    for message in quoted_messages(document.read_text()):
        assert len(message.replace("...", "").strip()) >= 10, f"{message!r} could be anything"
        assert is_printed(message), f"{document.name}: no code prints {message!r}"


@pytest.mark.parametrize("message", ["no MoCo weights ...", "... of different runs", "no file .../split.json"])
def test_a_quote_that_no_code_prints_is_found_out(message):
    assert quoted_messages(f"* If you see\n  `{message}`: do something.") == [message]
    assert not is_printed(message)
