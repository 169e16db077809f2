"""The changes of ``make mutants`` fit the code of today; running them takes half an hour."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import mutants


def test_every_change_applies_once_and_gives_another_program() -> None:
    mutations = mutants.read_mutations()
    assert len(mutations) > 200
    assert len(set(mutations)) == len(mutations)
    for mutation in mutations:
        text = (mutants.PROJECT / "src/phoenix_pipeline" / mutation.file).read_text()
        assert text.count(mutation.old) == 1, mutation.title
        changed = text.replace(mutation.old, mutation.new)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), mutation.title
        for test in mutation.tests:
            assert (mutants.PROJECT / test).exists(), test


@pytest.mark.slow
def test_a_change_is_seen_in_a_copy_and_leaves_the_project_alone() -> None:
    mutation = next(m for m in mutants.read_mutations() if m.file == "optimization/schedules.py")
    source = mutants.PROJECT / "src/phoenix_pipeline" / mutation.file
    before = source.read_bytes()
    assert in_a_process(mutation) == "killed"
    assert in_a_process(mutants.Mutation("", "", "", mutation.tests)) == "survived"
    assert source.read_bytes() == before


def in_a_process(mutation: mutants.Mutation) -> str:
    program = f"import mutants; print(mutants.judge(mutants.{mutation!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=Path(mutants.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]
