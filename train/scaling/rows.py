"""Measurements of losses from a user's CSV file: named columns, numbers above 0, and errors that name file, line and column.

What a fit reads, each from the column of the same name unless it is given another:

    params      parameters of the model                       tokens   tokens it was trained on: flops / (6 params) without it
    loss        nats a token on held-out text                 flops    training FLOPs: 6 params tokens without it
    run         which training run a row belongs to: any text          (approach 1)
    experts     experts of a sparse layer; 1 is dense                  (routed law)

Rows come sorted by their values, so that the order in the file cannot change a byte of what is fitted.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UserError
from train.scaling.laws import FLOPS_A_PARAMETER_TOKEN

NUMBERS = ("params", "tokens", "flops", "loss", "experts")
COLUMNS = (*NUMBERS, "run")


@dataclass(frozen=True, slots=True)
class Rows:
    """`values`: float64 [rows] by name. `runs`: the text of the column run, where it was asked for."""

    path: str
    values: dict[str, np.ndarray]
    runs: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values["loss"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]


def read(path: str, wanted: Sequence[str], columns: Mapping[str, str], where: Mapping[str, str]) -> Rows:
    """Read what is wanted (of COLUMNS; `tokens` and `flops` fill each other in).

    Args:
        path: CSV with a header line; `.gz` is unpacked.
        wanted: names of COLUMNS.
        columns: the file's own name of a column, by ours.
        where: only rows that have exactly this text in the file's column.

    Raises:
        UserError: no such file or column, a value that is no number above 0, no rows.
    """
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise UserError(f"{unknown[0]}: no column that a fit reads; these are: {', '.join(COLUMNS)}")
    header, lines = _lines(path)
    names = {name: columns.get(name, name) for name in COLUMNS}
    read_here, filled = list(wanted), ""
    for name, other in (("tokens", "flops"), ("flops", "tokens")):
        if name in wanted and names[name] not in header and name not in columns and names[other] in header:
            read_here[read_here.index(name)], filled = other, name
            break
    for name in (*(names[name] for name in read_here), *where):
        if name not in header:
            ours = next((key for key in read_here if names[key] == name), None)
            way = f"; name it with --column {ours}=NAME" if ours else ""
            raise UserError(f"{path}: no column {name!r}, only {', '.join(header)}{way}")
    chosen = [(number, row) for number, row in lines if all(row[key] == value for key, value in where.items())]
    if not chosen:
        raise UserError(f"{path}: no rows{' with ' + ', '.join(f'{k}={v}' for k, v in where.items()) if where else ''}")
    numbers = [name for name in read_here if name != "run"]
    values = {name: [_number(path, number, names[name], row[names[name]]) for number, row in chosen] for name in numbers}
    runs = [row[names["run"]] for _, row in chosen] if "run" in read_here else [""] * len(chosen)
    order = sorted(range(len(chosen)), key=lambda at: (runs[at], *(column[at] for column in values.values())))
    arrays = {name: np.array([column[at] for at in order]) for name, column in values.items()}
    if filled:
        a_token = FLOPS_A_PARAMETER_TOKEN * arrays["params"]
        arrays[filled] = arrays["flops"] / a_token if filled == "tokens" else arrays["tokens"] * a_token
    return Rows(path, arrays, tuple(runs[at] for at in order) if "run" in wanted else ())


def _lines(path: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header and (line number, values by column) of every row."""
    try:
        with gzip.open(path, "rt", newline="") if path.endswith(".gz") else open(path, newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not any(header):
                raise UserError(f"{path}: empty; the first line names the columns")
            repeated = sorted({name for name in header if header.count(name) > 1})
            if repeated:
                raise UserError(f"{path}: column {repeated[0]!r} stands twice in the header")
            lines = []
            for row in reader:
                if row and len(row) != len(header):
                    raise UserError(f"{path}: line {reader.line_num} has {len(row)} values, the header {len(header)}")
                if row:
                    lines.append((reader.line_num, dict(zip(header, row, strict=True))))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a CSV file with a header line") from error
    except (csv.Error, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{path}: not a CSV file ({error})") from error
    return header, lines


def _number(path: str, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{path}: line {line}: {column} is {text!r}; it must be a number above 0")
    return value


def need_distinct(rows: Rows, name: str, least: int) -> None:
    """Raises UserError where fewer than `least` different values of a column stand in the rows."""
    found = len(np.unique(rows[name]))
    if found < least:
        only = f"all rows have {name} {rows[name][0]:.6g}" if found == 1 else f"only {found} different values of {name}"
        raise UserError(f"{rows.path}: {only}; this fit needs at least {least}")


def need_rows(rows: Rows, least: int) -> None:
    """Raises UserError where there are fewer rows."""
    if len(rows) < least:
        raise UserError(f"{rows.path}: {len(rows)} row{'s' * (len(rows) != 1)}; this fit needs at least {least}")
