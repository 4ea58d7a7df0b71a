"""The list of mutations fits the code that it breaks and the tests that it names, so that it cannot rot."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests import mutants
from tests.mutants import Mutant

LIST = mutants.load()


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("mutant", LIST, ids=[m.id for m in LIST])
def test_a_mutation_fits_its_file_and_names_a_test(mutant: Mutant) -> None:
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        before = texts.get(edit.file) or (mutants.ROOT / edit.file).read_text(encoding="utf-8")
        texts[edit.file] = mutants.mutated(before, edit)
        assert edit.new != edit.old
    for name, text in texts.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    path, _, test = mutant.test.partition("::")
    assert test.partition("[")[0] in functions(mutants.ROOT / path)


def test_no_two_mutations_share_a_name_or_say_the_same() -> None:
    """Two tests may notice the same change; then each stands here."""
    assert len({m.id for m in LIST}) == len(LIST) >= 40
    assert len({(m.test, repr(m.edits)) for m in LIST}) == len(LIST)


@pytest.mark.parametrize("text", ["", "old old"])
def test_a_text_that_is_not_there_once_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        mutants.mutated(text, mutants.Edit("some.py", "old", "new"))
