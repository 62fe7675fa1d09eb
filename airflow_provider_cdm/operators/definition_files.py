"""Where the file of a definition is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_cdm.client.errors import CdmConfigError

if TYPE_CHECKING:
    import jinja2


#: Bytes of the largest file that is read.
_LARGEST = 10_000_000


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
            for candidate in _candidates(file, environment)[:1]:
                _check_size(candidate)
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

    for candidate in _candidates(file, environment)[:1]:
        _check_size(candidate)
        return environment.from_string(candidate.read_text("utf-8"))  # type: ignore[no-any-return]
    raise jinja2.TemplateNotFound(str(file))


def _candidates(file: Path, environment: Any) -> list[Path]:
    """Return the existing files that a path may mean, the first of which is the one."""
    folders = getattr(environment.loader, "searchpath", ())
    possible = [file] if file.is_absolute() else [Path(folder, file) for folder in folders]
    return [candidate for candidate in possible if candidate.is_file()]


def _check_size(file: Path) -> None:
    if file.stat().st_size > _LARGEST:
        raise CdmConfigError(f"The file {str(file)!r} has more than {_LARGEST:,} bytes.")
