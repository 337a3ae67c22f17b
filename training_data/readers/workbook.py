"""Excel workbooks as rows, by openpyxl, which is asked for when it is needed: `m3-router[excel]`."""

from collections.abc import Iterator
from pathlib import Path

from complexity.errors import InvalidInput, M3Error
from training_data.readers.row_files import unreadable
from training_data.readers.source import Row


def workbook(file: Path) -> Iterator[Row]:
    """The rows of a workbook's first sheet, whose first row names the columns; blank rows are passed over.

    Cells are numbers, texts, truths, or None where they are empty.

    Raises:
        InvalidInput: the file can't be read, or is no .xlsx.
        M3Error: openpyxl isn't installed.
    """
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise M3Error(f"{file}: .xlsx needs openpyxl: pip install 'm3-router[excel]'; or save it as .csv") from None
    try:
        book = load_workbook(file, read_only=True, data_only=True)
        sheet = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except OSError as error:
        raise unreadable(file, error) from None
    except Exception as error:  # of the archive or its XML: openpyxl lets errors of a dozen types through
        raise InvalidInput(f"{file} is no workbook: {error}") from None
    names = [str(name) for name in sheet[0]] if sheet else []
    for line, cells in enumerate(sheet[1:], 2):
        if any(cell is not None for cell in cells):
            yield Row(file, line, dict(zip(names, cells, strict=False)))
