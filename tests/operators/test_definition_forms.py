"""The forms in which a definition is given: paths, texts, functions, and what is no tree."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_cdm.client import errors
from airflow_provider_cdm.operators import CdmApplyLinkOperator, CdmCreateJobOperator
from tests.hostile.test_forks import ending
from tests.operators.test_rendered_text import render

#: Aliases that stand for 9 to the power of 9 texts.
BILLIONS = "\n".join(
    [f"a0: &a0 [{', '.join(['x'] * 9)}]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a definition, beside one with the DAG."""
    (tmp_path / "definitions").mkdir()
    (tmp_path / "dags").mkdir()
    (tmp_path / "definitions" / "a.yaml").write_text("name: '{{ name }}'")
    return tmp_path


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(
    "path",
    [
        lambda folder: folder / "definitions" / "a.yaml",
        lambda folder: str(folder / "definitions" / "a.yaml"),
        lambda folder: Path("definitions/a.yaml"),
        lambda folder: "definitions/a.yaml",
        lambda folder: "./definitions/a.yaml",
        lambda folder: Path("dags/../definitions/a.yaml"),
        lambda folder: "definitions/{{ file }}.yaml",
        lambda folder: str(folder) + "/definitions/{{ file }}.yaml",
        lambda folder: "{{ path }}",
    ],
    ids=["absolute Path", "absolute", "Path", "relative", "dot", "parent", "template",
         "absolute template", "path from a template"],
)  # fmt: skip
def test_definition_is_read_from_a_file(path: Any, native: bool, folder: Path) -> None:
    """A file is named by text or ``Path``, absolute or from the DAG's search path."""
    task = CdmCreateJobOperator(task_id="t", definition=path(folder))
    context = {"name": "orders", "file": "a", "path": "definitions/a.yaml"}
    task = render(task, context, native=native, template_searchpath=str(folder))
    assert task.definition == {"name": "orders"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/gone/a.yaml", r"There is no file '/gone/a.yaml'\.$"),
        ("../gone.yaml", "no file '../gone.yaml', neither beside the DAG file"),
        (Path("gone.json"), "no file 'gone.json', neither beside the DAG file"),
    ],
)
def test_missing_file_is_named(path: Any, message: str, folder: Path) -> None:
    """The error for a missing file names it as it was given."""
    with pytest.raises(errors.CdmConfigError, match=message):
        render(CdmCreateJobOperator(task_id="t", definition=path), {}, native=False)


def test_file_that_is_no_text_is_named(folder: Path) -> None:
    """A file that cannot be read as text is an error that names it and not its content."""
    (folder / "b.json").write_bytes(b"pa55word \xff")
    with pytest.raises(errors.CdmConfigError, match=r"b\.json' cannot be read") as raised:
        render(CdmCreateJobOperator(task_id="t", definition=folder / "b.json"), {}, native=False)
    assert "pa55word" not in str(raised.value)


def test_definition_that_contains_itself_is_refused() -> None:
    """A list in itself has no end; parsing the DAG must have one."""
    endless: dict[str, Any] = {"name": "a"}
    endless["more"] = [endless]
    with pytest.raises(errors.CdmConfigError, match="contains itself"):
        CdmCreateJobOperator(task_id="t", definition=endless)


@pytest.mark.parametrize("form", ["text", "file", "function"])
def test_aliases_that_explode_are_refused(form: str, folder: Path) -> None:
    """A few lines of YAML that stand for billions are an error, and not a full memory."""
    (folder / "b.yaml").write_text(BILLIONS)
    forms: dict[str, Any] = {
        "text": BILLIONS,
        "file": folder / "b.yaml",
        "function": lambda **_: BILLIONS,
    }

    def parse_and_render() -> None:
        task = CdmCreateJobOperator(task_id="t", definition=forms[form])
        render(task, {"task": task}, native=False)

    end = ending(parse_and_render)
    assert end.startswith("CdmConfigError: ")
    assert "more than 10,000,000 characters" in end


def test_aliases_of_reasonable_size_are_written_out() -> None:
    """An alias means what it stands for."""
    text = "base: &base {driver: x}\nname: a\nthis: *base\nthat: *base"
    task = render(CdmCreateJobOperator(task_id="t", definition=text), {}, native=False)
    assert task.definition["this"] == task.definition["that"] == {"driver": "x"}
    assert task.definition["this"] is not task.definition["that"]


def test_other_mappings_are_rendered_as_well() -> None:
    """A mapping of another class is one."""
    given = types.MappingProxyType({"name": "{{ name }}"})
    task = render(CdmCreateJobOperator(task_id="t", definition=given), {"name": "a"}, native=True)
    assert task.definition == {"name": "a"}


@pytest.mark.parametrize(
    "definition",
    [
        '{"name": "a", "inputs": [{"name": "linkConfig.password", "value": "pa55word"}]}',
        "name: a\ninputs:\n- name: linkConfig.password\n  value: pa55word\n",
        types.MappingProxyType({"i": [{"name": "linkConfig.password", "value": "pa55word"}]}),
        {"i": ({"name": "linkConfig.password", "value": "pa55word"},)},
    ],
    ids=["JSON", "YAML", "mapping", "tuple"],
)
def test_literal_secret_is_found_in_every_form(definition: Any) -> None:
    """A secret in the DAG file is refused however the definition is written."""
    with pytest.raises(errors.CdmConfigError, match=r"linkConfig\.password") as raised:
        CdmApplyLinkOperator(task_id="t", definition=definition)
    assert "pa55word" not in str(raised.value)
