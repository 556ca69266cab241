"""What tests/conftest.py takes out of coverage, and that what runs afterwards counts again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
CODE = """
def for_the_property(number):
    return number

def for_the_marked():
    return 1

def for_the_last():
    return 2
"""
TESTS = """
import pytest
from hypothesis import given, strategies as st
from code_under_test import *

@given(st.integers())
def test_first(number):
    assert for_the_property(number) == number

@pytest.mark.uncounted
def test_second():
    assert for_the_marked() == 1
    assert not LAST_FAILS

def test_third():
    assert for_the_last() == 2
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="lines are counted without a trace function: all count")
@pytest.mark.parametrize("fails", [False, True])
def test_lines_of_properties_and_marked_tests_do_not_count_and_those_of_the_next_test_do(
    tmp_path: Path, fails: bool
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = uncounted\npythonpath = .\naddopts = -p no:xdist\n")
    (tmp_path / "code_under_test.py").write_text(CODE)
    (tmp_path / "test_it.py").write_text(TESTS.replace("LAST_FAILS", str(fails)))

    ran = subprocess.run(
        [sys.executable, "-m", "coverage", "run", "--source=.", "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True
    )
    subprocess.run([sys.executable, "-m", "coverage", "json", "-o", "found.json"], cwd=tmp_path, check=True)

    assert ran.returncode == int(fails), ran.stdout
    found = json.loads((tmp_path / "found.json").read_text())["files"]["code_under_test.py"]
    assert found["executed_lines"] == [2, 5, 8, 9]
    assert found["missing_lines"] == [3, 6]
