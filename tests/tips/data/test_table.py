"""Tables as spreadsheets write them; what is wrong is told by line and column."""

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from dltips.errors import ConfigError
from dltips.tips.data import Source
from dltips.tips.data.table import csv, encode, read_table

PLAIN = "age,city,kind\n30,Oslo,a\n41,Rome,b\n,Oslo,a\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my.csv"


def load(file: Path, content: str | bytes, **knobs: Any) -> Source:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    usual = {"label": "kind", "categorical": None, "ignore": (), "delimiter": None}
    return csv(file=str(file), **{**usual, **knobs})


def same(source: Source, rows: list[list[float]], targets: list[int], classes: tuple[str, ...] = ("a", "b")) -> None:
    assert source.inputs.dtype == torch.float32 and source.targets.dtype == torch.int64
    numpy.testing.assert_array_equal(source.inputs.numpy(), rows)
    assert source.targets.tolist() == targets and source.classes == classes


def test_numbers_are_features_and_categories_a_feature_per_level(file: Path) -> None:
    source = load(file, PLAIN)
    same(source, [[30, 1, 0], [41, 0, 1], [math.nan, 1, 0]], [0, 1, 0])
    assert source.reader == {
        "kind": "csv",
        "columns": ["age", "city"],
        "categories": {"city": ["Oslo", "Rome"]},
        "delimiter": None,
        "missing": True,
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_spreadsheet_s_dialect_is_the_same_table(file: Path, delimiter: str, end: str, mark: str) -> None:
    content = mark + PLAIN.replace(",", delimiter).replace("\n", end)
    source = load(file, content)
    same(source, [[30, 1, 0], [41, 0, 1], [math.nan, 1, 0]], [0, 1, 0])
    assert source.reader["columns"] == ["age", "city"]
    same(load(file, content, delimiter=delimiter), [[30, 1, 0], [41, 0, 1], [math.nan, 1, 0]], [0, 1, 0])


def test_quotes_hold_delimiters_quotes_and_line_ends(file: Path) -> None:
    source = load(file, 'kind,"the, ""city"""\na,"x,\ny"\nb," z "\n\n  \na,"x,\ny"\n')
    same(source, [[1, 0], [0, 1], [1, 0]], [0, 1, 0])
    assert source.reader["categories"] == {'the, "city"': ["x,\ny", "z"]}


def test_what_is_missing_is_nan_among_numbers_and_a_level_of_its_own_among_categories(file: Path) -> None:
    rows = [f"{cell},{cell},a" for cell in ("", "?", "NA", "N/a", "NaN", "null", " ")]
    source = load(file, "\n".join(["n,c,kind", "1,x,b", *rows]))
    same(source, [[1, 0, 1]] + [[math.nan, 1, 0]] * 7, [1] + [0] * 7)
    assert source.reader["categories"] == {"c": ["", "x"]}


def test_listed_columns_are_categories_and_ignored_ones_are_not_there(file: Path) -> None:
    content = "id,month,kind\n1,10,a\n2,9,b\n3,10,a\n"
    same(load(file, content, categorical=("month",), ignore=("id",)), [[1, 0], [0, 1], [1, 0]], [0, 1, 0])
    same(load(file, content), [[1, 10], [2, 9], [3, 10]], [0, 1, 0])


def test_labels_that_are_numbers_are_in_the_order_of_numbers(file: Path) -> None:
    same(load(file, "x,kind\n1,10\n2,9\n3,-1\n"), [[1], [2], [3]], [2, 1, 0], ("-1", "9", "10"))


def test_a_changed_table_is_read_again(file: Path) -> None:
    first = load(file, PLAIN)
    second = load(file, PLAIN.replace("30", "31"))
    assert first.hash != second.hash and float(second.inputs[0, 0]) == 31


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,city,knid\n1,b,a\n", r"data\.label: {file} .*'kind'; did you mean knid\?"),
        ("", r"data\.file: {file} .*empty; .*columns"),
        ("\n\n", r"data\.file: {file} .*empty; .*columns"),
        ("age,kind\n", r"data\.file: {file} .*no rows"),
        ("age,age,kind\n1,2,a\n", r"data\.file: {file} .*two columns called age; .*each column"),
        ("age,,kind\n1,2,a\n", r"data\.file: {file} .*column 2; .*each column"),
        ("kind\na\nb\n", r"data\.file: {file} .*no column .*labels.*"),
        ("age,kind\n1,a\n\n2,b,c\n", r"data\.file: {file}, line 4 .*3 cells, .*2"),
        ('age,kind\n"1\n",a\n2\n', r"data\.file: {file}, line 4 .*1 cells, .*2"),
        ("age,kind\n1,a\n2,a\n", r"data\.label: kind .*one class.* \(a\); .*two"),
        ("age,kind\n1,a\n2,\n", r"data\.file: {file}, line 3: kind .*empty; delete the row"),
        ('age,kind\n1,a\n"2"x,b\n', r"data\.file: {file}, line 3 .*\(',' expected after '\"'\); .*quotes"),
        ('age,kind\n1,a\n"2,b\n', r"data\.file: {file}, line 3 .*\(unexpected end of data\); .*quotes"),
        (b"age,kind\n1,a\n2,\xe9\n", r"data\.file: {file}, line 3 .*; save the table as UTF-8"),
        ("age,kind\n" + "1,a\n" * 20 + "4o,b\n", r"data\.file: {file}, line 22: age is '4o', .*data\.categorical"),
        ("age,kind\n" + "1,a\n" * 20 + "inf,b\n", r"data\.file: {file}, line 22: age is 'inf', .*data\.categorical"),
        (
            "name,kind\n" + "".join(f"n{row},{'ab'[row % 2]}\n" for row in range(30)),
            r"data\.ignore: name .*30 .* 30 rows, .*'data\.ignore=\[name\]'.* data\.categorical",
        ),
        (
            "age,kind\n" + "".join(f"{row},{row / 7}\n" for row in range(30)),
            r"data\.label: kind .*30 .* 30 rows, .*another column",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(file: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message.format(file=file)}$"):
        load(file, content)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"label": None}, r"data\.label: .*data\.label=NAME; .*: age, city, kind"),
        ({"ignore": ("cty",)}, r"data\.ignore: {file} .*'cty'; did you mean city\?"),
        ({"categorical": ("cty",)}, r"data\.categorical: {file} .*'cty'; did you mean city\?"),
        ({"ignore": ("kind",)}, r"data\.ignore: kind .*; take it off the list"),
        ({"delimiter": "::"}, r"data\.delimiter: '::' .*; write data\.delimiter=null"),
        ({"categorical": ()}, r"data\.file: {file}, line 2: city is 'Oslo', .*data\.categorical"),
    ],
)
def test_a_knob_that_does_not_fit_the_table(file: Path, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message.format(file=file)}$"):
        load(file, PLAIN, **knobs)


@pytest.mark.parametrize(
    ("levels", "rows", "are_many"),
    [(20, 20, False), (21, 21, True), (21, 41, True), (21, 42, False), (30, 60, False), (30, 59, True)],
)
def test_more_than_20_texts_and_more_than_half_as_many_as_rows_are_no_categories(
    file: Path, levels: int, rows: int, are_many: bool
) -> None:
    content = "city,kind\n" + "".join(f"c{row % levels:02},{'ab'[row % 2]}\n" for row in range(rows))
    labels = "size,kind\n" + "".join(f"{row},k{row % levels:02}\n" for row in range(rows))
    if are_many:
        with pytest.raises(ConfigError, match=rf"^data\.ignore: city .*{levels} .* {rows} rows"):
            load(file, content)
        with pytest.raises(ConfigError, match=rf"^data\.label: kind .*{levels} .* {rows} rows"):
            load(file, labels)
    else:
        assert load(file, content).inputs.shape == (rows, levels)
        assert len(load(file, labels).classes) == levels


@pytest.mark.parametrize(("levels", "hint"), [(20, r"; did you mean c\d+\?"), (21, "")])
def test_what_training_never_saw_is_compared_with_20_levels_at_most(file: Path, levels: int, hint: str) -> None:
    """Of more the nearest one would be chance."""
    names = [f"c{level:02}" for level in range(levels)]
    file.write_text("city\nc0l\n")
    with pytest.raises(ConfigError, match=f"^predict: {file}, line 2: city is 'c0l', [^;]*{hint}$"):
        encode(read_table(file, None, "predict"), ["city"], {"city": names}, "predict")


def test_a_label_that_stands_there_once_is_a_class(file: Path) -> None:
    assert load(file, "x,kind\n1,a\n2,a\n3,b\n").classes == ("a", "b")


def test_no_file(file: Path) -> None:
    for value, message in (
        (None, r"is missing; .*\.csv.*data\.file=PATH"),
        (str(file), rf"{file} does not exist; .*\.csv.*"),
    ):
        with pytest.raises(ConfigError, match=rf"^data\.file: {message}$"):
            csv(file=value, label="kind", categorical=None, ignore=(), delimiter=None)
