"""Code: real packages and the standard library, packed by tarfile and zipfile; rows in the public schemas; every reject."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records import Input, Limits, Record, Reject
from pipelines.sources import SourceOptions, count_records, reader
from pipelines.sources.boilerplate import generated, is_notice, without_header
from pipelines.sources.code_languages import COMMENTS, EXTENSIONS, language_of

MIT = distribution("attrs").read_text("licenses/LICENSE") or ""
GPL_HEADER = "# This is free software under the terms of the GNU General Public License.\n\n"
LIBRARY = Path(tarfile.__file__).parent


def run(path, root=None, limit=64 << 20, counted=True):
    """(records, rejects) of a file; the count by other code is checked for every one without damage."""
    name = str(path.relative_to(root)) if root else path.name
    one = Input(name, str(path), 0, "")
    found = list(reader("code")(one, SourceOptions(), Limits(limit), None))
    records = [item for item in found if isinstance(item, Record)]
    rejects = [item for item in found if isinstance(item, Reject)]
    if counted:
        assert count_records("code", one, SourceOptions()) == len(records) + sum(r.count for r in rejects)
    return records, rejects


def reasons(rejects):
    return dict(sum((Counter({(str(r.reason), r.detail): r.count}) for r in rejects), Counter()))


def tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# -- real code --------------------------------------------------------------------------------------------------------------


def installed(name):
    """(path below site-packages, file) of an installed package's code and licences."""
    files = distribution(name).files or []
    return sorted((str(f), f.locate()) for f in files if f.suffix != ".pyc" and "__pycache__" not in str(f) and f.name != "RECORD")


@pytest.mark.parametrize(("name", "license"), [("attrs", "MIT"), ("jinja2", "LicenseRef-BSD"), ("fsspec", "BSD-3-Clause")])
@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_a_package_as_a_repository(name, license, form, tmp_path):
    """Every Python file is a document under the licence that the metadata states, every other file one reject."""
    files, path = installed(name), tmp_path / f"package.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for inside, file in files:
                archive.write(file, f"repo-1234/{inside}")
    else:
        with tarfile.open(path, "w:gz" if form == "tar.gz" else "w") as archive:
            for inside, file in files:
                archive.add(file, f"repo-1234/{inside}")
    records, rejects = run(path)
    code = [inside for inside, _ in files if inside.endswith((".py", ".pyi"))]
    assert [r.source_id for r in records] == [f"repo-1234/{inside}" for inside in code]
    told = {r.license for r in records}
    assert told in ({license}, {"BSD-3-Clause"})
    assert {r.title for r in records} == {"Python"}
    assert {str(r.reason) for r in rejects} == {"not_code"}
    for record, (_, file) in zip(records, [f for f in files if f[0] in code], strict=True):
        assert Path(file).read_text().endswith(record.text)
        assert record.locator.startswith(f"package.{form}!repo-1234/")


def test_the_standard_library_without_a_licence_is_refused_and_with_one_taken(tmp_path):
    """`json` and `email`: no file states a licence of its own, so only a LICENSE beside them decides. It stands last."""
    found = [f for name in ("json", "email") for f in sorted((LIBRARY / name).glob("*.py"))]
    files = {f"cpython/{f.relative_to(LIBRARY)}": f.read_bytes() for f in found}
    records, rejects = run(tar(tmp_path / "a.tar", files))
    assert records == []
    assert reasons(rejects) == {("license_unknown", "none stated"): len(files)}
    assert len(rejects) == 1  # a run is one row
    records, rejects = run(tar(tmp_path / "b.tar", {**files, "cpython/LICENSE": MIT}))
    assert len(records) == len(files)
    assert reasons(rejects) == {("not_code", "no language by the name"): 1}


def test_an_installed_tree_goes_by_what_each_package_records():
    """site-packages holds many packages in one folder: a file has the licence of the package whose RECORD lists it."""
    root = Path(str(distribution("attrs").locate_file("")))
    (record,), _ = run(root / "attr/_make.py", root)
    assert (record.license, record.source_id, record.locator) == ("MIT", "attr/_make.py", "attr/_make.py#0")
    _, (reject,) = run(root / "certifi/core.py", root)
    assert (reject.reason, reject.detail) == ("license_not_permitted", "MPL-2.0")


# -- licences ---------------------------------------------------------------------------------------------------------------


def test_the_nearest_licence_holds_and_a_header_holds_before_it(tmp_path):
    path = tar(
        tmp_path / "a.tar",
        {
            "r/a.py": "a = 1\n",
            "r/vendor/x/b.c": "int b;\n",
            "r/gpl.py": GPL_HEADER + "c = 1\n",
            "r/tag.py": "# SPDX-License-Identifier: Apache-2.0\nd = 1\n",
            "r/vendor/x/LICENSE.txt": "My own terms.",
            "r/COPYING": MIT,
            "other/e.py": "e = 1\n",
        },
    )
    records, rejects = run(path)
    assert [(r.source_id, r.license, r.text) for r in records] == [
        ("r/a.py", "MIT", "a = 1\n"),
        ("r/tag.py", "Apache-2.0", "d = 1\n"),
    ]
    assert reasons(rejects) == {
        ("license_unknown", "stated, but not told"): 1,
        ("license_not_permitted", "GPL-2.0"): 1,
        ("license_unknown", "none stated"): 1,
        ("not_code", "no language for .txt"): 1,
        ("not_code", "no language by the name"): 1,
    }


def test_a_tree_finds_the_licence_beside_and_above_but_not_above_its_root(tmp_path):
    root = tmp_path / "trees"
    for name, content in {"LICENSE": MIT, "p/q/a.rs": "fn a() {}\n", "p/s/LICENCE": "mine", "p/s/b.rs": "fn b() {}\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (record,), _ = run(root / "p/q/a.rs", root)
    assert (record.license, record.title) == ("MIT", "Rust")
    _, (reject,) = run(root / "p/s/b.rs", root)
    assert (reject.reason, reject.detail) == ("license_unknown", "stated, but not told")
    _, (reject,) = run(root / "p/q/a.rs", root / "p")  # its root lies below the licence
    assert (reject.reason, reject.detail) == ("license_unknown", "none stated")


# -- rows -------------------------------------------------------------------------------------------------------------------


def bigquery(number, content, path, license, repo="o/r", binary=False):
    named = {"sample_repo_name": repo, "sample_path": path, "license": license}
    return {"id": f"{number}f", "size": 4, "content": content, "binary": binary, "copies": 2, **named}


def stack(content, path, licenses):
    named = {"max_stars_repo_name": "o/r", "max_stars_repo_path": path, "max_stars_repo_licenses": licenses}
    return {"content": content, **named, "ext": "go", "lang": "Go", "hexsha": "aa", "size": 1}


BIGQUERY = [
    bigquery(1, "a=1\n", "a.py", "mit"),
    bigquery(2, None, "b.py", "mit", binary=True),
    bigquery(3, "c=1\n", "c.py", "gpl-3.0"),
    bigquery(4, "d=1\n", "d.py", None),
    bigquery(5, None, "e.py", "mit"),
]
STACK = [stack("x", "x.go", ["Apache-2.0", "MIT"]), stack("y", "y.go", ["MIT", "strange"]), stack("z", "z.go", [])]
_V2 = {"detected_licenses": ["BSD-3-Clause"], "license_type": "permissive", "blob_id": "dd"}
STACK_2 = [{"content": "x", "repo_name": "o/r", "path": "/x.ts", **_V2}]
ROWS = {
    "bigquery": (BIGQUERY, [("o/r:a.py", "MIT", "Python")], {
        ("not_code", "binary"): 1, ("license_not_permitted", "GPL-3.0"): 1, ("license_unknown", "none stated"): 1,
        ("missing_text", "no 'content'"): 1}),
    "stack": (STACK, [("o/r:x.go", "Apache-2.0 AND MIT", "Go")], {
        ("license_unknown", "stated, but not told: MIT, strange"): 1, ("license_unknown", "none stated"): 1}),
    "stack 2": (STACK_2, [("o/r:/x.ts", "BSD-3-Clause", "TypeScript")], {}),
}  # fmt: skip


@pytest.mark.parametrize("schema", sorted(ROWS))
@pytest.mark.parametrize("form", ["jsonl", "json.gz", "parquet"])
def test_rows_in_the_public_schemas(schema, form, tmp_path):
    rows, expected, rejected = ROWS[schema]
    path, data = tmp_path / f"000.{form}", "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(data) if form == "json.gz" else data)
    records, rejects = run(path)
    assert [(r.source_id, r.license, r.title) for r in records] == expected
    assert reasons(rejects) == rejected
    assert [r.locator for r in records] == [f"000.{form}#0"]


def test_bad_rows(tmp_path):
    good = json.dumps(BIGQUERY[0])
    lines = [good, "", "[1]", '{"content": 7, "path": "a.py"}', '{"content": "a" "path"', good.replace("a.py", "a.csv"), "x" * 3000]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    records, rejects = run(tmp_path / "a.jsonl", limit=2000)
    assert [r.locator for r in records] == ["a.jsonl#0"]
    assert [(str(r.reason), r.locator) for r in rejects] == [
        ("malformed_json", "a.jsonl#1"), ("text_not_string", "a.jsonl#2"), ("malformed_json", "a.jsonl#3"),
        ("not_code", "a.jsonl#4"), ("too_large", "a.jsonl#5"),
    ]  # fmt: skip
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + b"no footer" * 9)
    _, (reject,) = run(tmp_path / "b.parquet")
    assert (reject.reason, reject.unknown_rest) == ("corrupt_container", True)
    pq.write_table(pa.table({"path": ["a.py", "b.py"]}), tmp_path / "c.parquet")
    _, (reject,) = run(tmp_path / "c.parquet")
    assert (reject.reason, reject.count) == ("missing_text", 2)


# -- what is no code --------------------------------------------------------------------------------------------------------


def test_what_is_no_code(tmp_path):
    files = {
        "r/LICENSE": MIT, "r/a.png": b"\x89PNG", "r/b.py": b"a\0b", "r/c.py": b"caf\xe9", "r/d.min.js": "x", "r/e_pb2.py": "x",
        "r/f.go": "// Code generated by stringer; DO NOT EDIT.\n", "r/g.json": "{}", "r/Makefile": "all:\n", "r/empty.py": "",
        "r/big.py": "x" * 5000, "../out.py": "x",
    }  # fmt: skip
    records, rejects = run(tar(tmp_path / "a.tar", files), limit=4000)
    assert [(r.source_id, r.title) for r in records] == [("r/Makefile", "Makefile"), ("r/empty.py", "Python")]
    assert reasons(rejects) == {
        ("not_code", "no language by the name"): 1, ("not_code", "no language for .png"): 1, ("not_code", "binary"): 1,
        ("invalid_utf8", "byte 3"): 1, ("not_code", "named *.min.js"): 1, ("not_code", "named *_pb2.py"): 1,
        ("not_code", "marked 'code generated by'"): 1, ("not_code", "no language for .json"): 1,
        ("too_large", "5000 bytes"): 1, ("unsafe_path", "a path that leads out"): 1,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_damaged_archives(form, tmp_path):
    path = tmp_path / f"a.{form}"
    path.write_bytes(b"no archive at all " * 99)
    records, (reject,) = run(path)
    assert (records, reject.reason, reject.unknown_rest) == ([], "corrupt_container", True)


def test_a_cut_gzip_gives_what_stands_before_the_cut(tmp_path):
    noise = "".join(hashlib.sha256(str(n).encode()).hexdigest() + "\n" for n in range(4000))
    path = tar(tmp_path / "a.tar.gz", {"LICENSE": MIT, "a.py": noise, "b.py": noise[::-1]}, "w:gz")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    records, rejects = run(path, counted=False)
    assert [r.source_id for r in records] == ["a.py"]
    assert [str(r.reason) for r in rejects] == ["not_code", "corrupt_container"]


def test_the_table_of_languages():
    assert len(EXTENSIONS) > 130
    assert set(EXTENSIONS.values()) <= set(COMMENTS)
    assert language_of("a/B.PY") == "Python"
    assert [language_of(name) for name in (".py", "py", "a.", "", "a.md", "a.py/b")] == [None] * 6


# -- headers ----------------------------------------------------------------------------------------------------------------

NOTICE = "Copyright (c) 2020 The Authors. All rights reserved."


@pytest.mark.parametrize("language", sorted(COMMENTS))
def test_headers_go_in_every_comment_syntax(language):
    code = "x = 1\n"
    for mark in COMMENTS[language].line:
        assert without_header(f"{mark} {NOTICE}\n{mark} More.\n\n{code}", language)[0] == code
    for opened, closed in COMMENTS[language].block:
        assert without_header(f"\n{opened}\n  {NOTICE}\n{closed}\n\n{code}", language)[0] == code


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (f"#!/bin/sh\n# -*- coding: utf-8 -*-\n# {NOTICE}\nls\n", "Shell", "#!/bin/sh\n# -*- coding: utf-8 -*-\nls\n"),
        (f'# {NOTICE}\n"""Copyright (c) 2020, in a docstring."""\n', "Python", '"""Copyright (c) 2020, in a docstring."""\n'),
        (f"<?php\n/* {NOTICE} */\necho 1;\n", "PHP", "<?php\necho 1;\n"),
        (f"// {NOTICE}\n//! Docs.\nfn a() {{}}\n", "Rust", "//! Docs.\nfn a() {}\n"),
        (f"/* {NOTICE} */\n\n// Package a reads licenses.\npackage a\n", "Go", "// Package a reads licenses.\npackage a\n"),
        ("# Reads license files.\nx = 1\n", "Python", "# Reads license files.\nx = 1\n"),
        (f"x = 1\n# {NOTICE}\n", "Python", f"x = 1\n# {NOTICE}\n"),
        (f"/* {NOTICE}", "C", f"/* {NOTICE}"),  # never closed
        (f"/* {NOTICE} */ int a;\n", "C", f"/* {NOTICE} */ int a;\n"),  # code on its last line
        (f"// {NOTICE}\n/* {NOTICE} */\n", "C", ""),
    ],
)
def test_what_goes_and_what_stays(text, language, expected):
    assert without_header(text, language)[0] == expected


@given(st.text(alphabet='#/*-!" \n\tacopyright(c)2019<?', max_size=300), st.sampled_from(sorted(COMMENTS)))
def test_only_a_notice_is_ever_removed(text, language):
    """What is left are kept first lines and the end of the text; what is gone is blank or a notice."""
    body, header = without_header(text, language)
    if not header:
        assert body == text
        return
    assert is_notice(header)
    splits = [n for n in range(len(body) + 1) if text.startswith(body[:n]) and text.endswith(body[n:])]
    assert any(text[n : len(text) - (len(body) - n)].split() == header.split() for n in splits)


@pytest.mark.parametrize(
    "text",
    [
        "#" * 1_000_000, "# copyright " * 100_000, "# copyright (c) 2020\n" * 50_000, "/*" * 500_000, " " * 1_000_000 + "#",
        "\n" * 1_000_000, "// generated by " * 60_000, "/* copyright by */\n" * 50_000, "(c) " * 250_000, "-*- " * 250_000,
    ],
)  # fmt: skip
def test_a_megabyte_made_to_be_slow_takes_steps_in_proportion(text):
    """A function that were quadratic would take 1e12 steps here and never end; the suite's limit on a test is the alarm."""
    for language in ("Python", "C", "Pascal"):
        body, _ = without_header(text, language)
        assert len(body) <= len(text)
    generated("a.py", text)
