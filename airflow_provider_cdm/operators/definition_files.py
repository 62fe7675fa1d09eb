"""Where the file of a definition is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client.errors import CdmConfigError

if TYPE_CHECKING:
    import jinja2


def template(path: str, environment: Any) -> jinja2.Template:
    """Return the template in a file.

    :param path: an absolute path, or one from the folder of the DAG file or from the DAG's
        ``template_searchpath``; it may begin with ``..``.
    :param environment: environment of the DAG.
    :raises CdmConfigError: when there is no such file, or it cannot be read as text.
    """
    import jinja2

    file = Path(path)
    try:
        # Jinja finds neither absolute paths nor those that leave a folder.
        if file.is_absolute() or ".." in file.parts:
            return _from_file(file, environment)
        if environment.loader is not None:
            return environment.get_template(file.as_posix())  # type: ignore[no-any-return]
        missing: Any = path
    except jinja2.TemplateNotFound as error:
        missing = error.name
    except (OSError, UnicodeError) as error:
        raise CdmConfigError(f"The file {path!r} cannot be read: {error}") from None
    folders = (
        ""
        if file.is_absolute()
        else (", neither beside the DAG file nor in the DAG's template_searchpath")
    )
    raise CdmConfigError(f"There is no file {missing!r}{folders}.")


def _from_file(file: Path, environment: Any) -> jinja2.Template:
    import jinja2

    folders = getattr(environment.loader, "searchpath", ())
    for candidate in [file] if file.is_absolute() else [Path(folder, file) for folder in folders]:
        if candidate.is_file():
            return environment.from_string(candidate.read_text("utf-8"))  # type: ignore[no-any-return]
    raise jinja2.TemplateNotFound(str(file))
