"""Read the tables that people write: a line of columns, and the lines below it."""

import codecs
import csv
import io
from pathlib import Path

from common.errors import UserError
from common.files import refuse_pointer

SEPARATORS = ",;\t"  # spreadsheets of some countries write semicolons
UTF_16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE  # spreadsheets call it Unicode text


def read_csv(path: Path, flag: str) -> tuple[list[str], list[list[str]]]:
    """The columns of the table that `flag` names, and the cells of each line that is not empty, without spaces around.

    Raises UserError, which begins with the flag and the path, if it cannot be read, or if a column is there twice.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{flag} {path} {what}; name a table of comma-separated values")
    refuse_pointer(path)
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in UTF_16 else "utf-8-sig")  # a byte order mark is no part of it
        separator = next((x for x in SEPARATORS if x in text.partition("\n")[0]), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        columns, *lines = [[cell.strip() for cell in line] for line in reader if any(line)] or [[]]
    except UnicodeDecodeError as error:
        what = f"is not in UTF-8 (byte {error.start})"
        raise UserError(f"{flag} {path} {what}; in your spreadsheet, save it as CSV UTF-8") from None
    except (csv.Error, OSError) as error:
        raise UserError(f"{flag} {path} cannot be read as comma-separated values: {error}") from None
    if doubled := next((column for column in columns if columns.count(column) > 1), None):
        raise UserError(f"{flag} {path}: column {doubled!r} is there twice; rename one")
    return columns, lines
