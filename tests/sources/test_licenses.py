"""Licences of the packages that are installed here: what their texts say against what their own metadata says."""

from __future__ import annotations

from importlib.metadata import distributions

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.licenses import (
    is_permitted,
    license_of_expression,
    license_of_header,
    license_of_metadata,
    license_of_text,
)

# Packages that the project itself requires, with the licence that their one text is known to be.
INSTALLED = {
    "attrs": "MIT", "pydantic": "MIT", "pyyaml": "MIT", "orjson": None, "typer": "MIT", "rich": "MIT", "pytest": "MIT",
    "jinja2": "BSD-3-Clause", "zstandard": "BSD-3-Clause", "click": "BSD-3-Clause", "fsspec": "BSD-3-Clause",
    "datasets": "Apache-2.0", "requests": "Apache-2.0", "hypothesis": "MPL-2.0", "pygments": "BSD-2-Clause",
    "typing-extensions": "PSF-2.0", "codespell": "GPL-2.0", "sortedcontainers": "Apache-2.0",
}  # fmt: skip


def text_of(name):
    """The texts of a package's own licence files, by name."""
    found = next((d for d in distributions() if (d.metadata["Name"] or "").lower().replace("_", "-") == name), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    files = [f for f in found.files or [] if ".dist-info" in str(f) and f.name.upper().startswith(("LICEN", "COPYING"))]
    return [f.read_text() for f in files]


@pytest.mark.parametrize("name", [name for name, known in INSTALLED.items() if known])
def test_the_texts_of_installed_packages_are_told(name):
    (text, *_) = text_of(name)
    assert license_of_text(text) in (INSTALLED[name], "BSD-2-Clause AND MIT AND PSF-2.0", "0BSD AND PSF-2.0")


def test_text_and_metadata_agree_on_what_is_permitted():
    """Over every installed package with one licence text: where both are told, it is the same decision but for bundles."""
    told = {}
    for found in distributions():
        files = [f for f in found.files or [] if ".dist-info" in str(f) and f.name.upper().startswith(("LICEN", "COPYING"))]
        if len(files) != 1:
            continue
        text = license_of_text(files[0].read_text())
        stated = license_of_metadata(found.read_text("METADATA") or "")
        if text and stated:
            told[found.metadata["Name"]] = (text, stated, is_permitted(text), is_permitted(stated))
    # tqdm's text names MPL in a way of its own: one more reason to believe metadata first.
    assert {name for name, row in told.items() if row[2] and not row[3]} <= {"tqdm"}
    # Texts of wheels also hold the licences of libraries that are bundled as binaries: the stricter answer.
    assert all(" AND " in row[0] for row in told.values() if row[3] and not row[2])
    assert sum(row[2] == row[3] for row in told.values()) / len(told) > 0.9
    assert len(told) > 50
    assert {row[2] for row in told.values()} == {True, False}


def mit():
    return text_of("attrs")[0]


def test_further_terms_make_a_licence_unknown():
    assert license_of_text(mit()) == "MIT"
    assert license_of_text(mit() + "\nYou may not use it on Sundays. " * 60) is None
    assert license_of_text(mit() + "\nCommons Clause License Condition v1.0") == "LicenseRef-Commons-Clause AND MIT"
    assert license_of_text(mit() + "\nThe Software shall be used for Good, not Evil.") == "JSON"
    assert license_of_text(mit().replace("free of charge", "for a fee")) is None
    assert license_of_text("") is None
    assert license_of_text("All rights reserved.") is None


def test_layout_case_and_punctuation_do_not_count():
    assert license_of_text("\n# ".join(mit().upper().split())) == "MIT"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("# SPDX-License-Identifier: MIT", "MIT"),
        ("/* SPDX-License-Identifier: (GPL-2.0-only OR bsd-3-clause) */", "(GPL-2.0-only OR BSD-3-Clause)"),
        ("// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("# SPDX-License-Identifier: My own", "LicenseRef-my-own"),
        ('# Licensed under the Apache License, Version 2.0 (the\n# "License"); you may not', "Apache-2.0"),
        ("* under the terms of the GNU Lesser General\n * Public License", "LGPL-2.1"),
        ("* under the terms of version 2 of the GNU General Public License", "GPL-2.0"),
        ("# Copyright 2001 somebody", None),
        ("# Licensed under the MIT license, or under the terms of the GNU General Public License", "GPL-2.0 AND MIT"),
    ],
)
def test_what_a_header_states(header, expected):
    assert license_of_header(header) == expected


@pytest.mark.parametrize(
    ("expression", "told", "permitted"),
    [
        ("mit", "MIT", True),
        ("bsd-3-clause", "BSD-3-Clause", True),
        ("Apache 2.0", "Apache-2.0", True),
        ("BSD License", "LicenseRef-BSD", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "MPL-2.0 AND (Apache-2.0 OR MIT)", False),
        ("MPL-2.0 OR MIT AND 0BSD", "MPL-2.0 OR MIT AND 0BSD", True),
        ("(MPL-2.0 OR MIT) AND GPL-3.0", "(MPL-2.0 OR MIT) AND GPL-3.0", False),
        ("isc", "ISC", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0", False),
    ],
)
def test_expressions(expression, told, permitted):
    assert license_of_expression(expression) == told
    assert is_permitted(told) is permitted


@pytest.mark.parametrize("bad", ["", "MIT AND", "AND", "(0BSD", "0BSD)", "MIT Apache-2.0", "MIT OR nonsense", "()", "MIT WITH"])
def test_what_is_no_expression(bad):
    assert license_of_expression(bad) is None


def test_metadata():
    assert license_of_metadata("Name: a\nLicense-Expression: MIT OR Apache-2.0\nLicense: GPL\n\nbody") == "MIT OR Apache-2.0"
    assert license_of_metadata("License: see file\nClassifier: License :: OSI Approved :: BSD License\n") == "LicenseRef-BSD"
    assert license_of_metadata("Name: a\n\nLicense: MIT\n") is None  # the description is not metadata
    two = "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: Other/Proprietary License\n"
    assert license_of_metadata(two) is None


@given(st.lists(st.sampled_from(["0BSD", "GPL-3.0", "AND", "OR", "(", ")"]), max_size=12))
def test_the_evaluator_is_pythons_own_logic(parts):
    """Against `eval` of the same expression in Python, where AND binds closer than OR too."""
    values = {"0BSD": "True", "GPL-3.0": "False", "AND": "and", "OR": "or"}
    expression = " ".join(parts)
    try:
        expected = eval(" ".join(values.get(part, part) for part in parts))
    except (SyntaxError, TypeError):
        expected = None
    if expected in (True, False):
        assert is_permitted(expression) is expected
    else:
        assert license_of_expression(expression) is None
