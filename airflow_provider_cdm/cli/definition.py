"""The commands and their arguments, declared once for ``argparse`` and for Airflow's own parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An argument of a command, as ``argparse`` takes it."""

    flags: tuple[str, ...]
    options: dict[str, Any]


class Command(NamedTuple):
    """A command; the function of the same name in ``commands`` performs it."""

    name: str
    help: str
    arguments: tuple[Argument, ...]


def _argument(*flags: str, **options: Any) -> Argument:
    return Argument(flags, options)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must have the form NAME=VALUE, and not {text!r}")
    return name, value


_CONN_ID = _argument("--conn-id", default="cdm_default", help="connection (default: cdm_default)")
_CLUSTER = _argument("--cluster-id", help="cluster (default: that of the connection)")
_OUTPUT = _argument(
    *("-o", "--output"),
    choices=("table", "json"),
    default="table",
    help="format of the result (default: table)",
)
_COMMON = (_CONN_ID, _CLUSTER, _OUTPUT)
_JOB = _argument("job_name", help="name of the job")

COMMANDS = (
    Command(
        "check",
        "Test a connection: endpoints, credentials, project, cluster",
        (_CONN_ID, _OUTPUT),
    ),
    Command(
        "jobs",
        "List the jobs of a cluster, with the status of their latest run",
        (*_COMMON, _argument("--filter", default="", help="part of the names to list")),
    ),
    Command("runs", "List the latest runs of a job, newest first", (_JOB, *_COMMON)),
    Command("status", "Show the latest run of a job, and why it failed", (_JOB, *_COMMON)),
    Command(
        "start",
        "Start a job once, and say which run it is",
        (
            *(_JOB, *_COMMON),
            _argument(
                *("-v", "--var"),
                type=_variable,
                action="append",
                default=[],
                metavar="NAME=VALUE",
                help="value of ${NAME} in the job, for this run only; may be repeated",
            ),
            _argument("--wait", action="store_true", help="wait for the end of the run"),
        ),
    ),
    Command("stop", "Stop the active run of a job, whoever started it", (_JOB, *_COMMON)),
    Command(
        "simulator",
        "Run the simulator of CDM, which the extra 'simulator' of this package brings",
        (_argument("arguments", nargs=argparse.REMAINDER, help="see: simulator --help"),),
    ),
)


def get_airflow_commands() -> list[Any]:
    """Return the group ``airflow cdm``; Airflow finds this function through the provider info."""
    from airflow_provider_cdm._compat import cli_config

    airflow = cli_config()
    return [
        airflow.GroupCommand(
            name="cdm",
            help="Jobs and runs of Huawei Cloud CDM",
            subcommands=[
                airflow.ActionCommand(
                    name=command.name,
                    help=command.help,
                    func=_performer(command.name),
                    args=[airflow.Arg(each.flags, **each.options) for each in command.arguments],
                )
                for command in COMMANDS
            ],
        )
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command: ``python -m airflow_provider_cdm``.

    :param arguments: arguments of the command line; by default those of the process.
    :raises SystemExit: with 0 after a success, 1 after a failure and 2 for wrong arguments.
    """
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_cdm", description="Jobs and runs of Huawei Cloud CDM."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in COMMANDS:
        # The simulator shows the help of its own arguments.
        own_help = command.name != "simulator"
        subparser = subparsers.add_parser(command.name, help=command.help, add_help=own_help)
        for each in command.arguments:
            subparser.add_argument(*each.flags, **each.options)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "simulator":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "simulator":
        given = list(sys.argv[1:] if arguments is None else arguments)
        options.arguments = given[given.index("simulator") + 1 :]
    _performer(options.command)(options)


def _performer(name: str) -> Callable[[argparse.Namespace], None]:
    """Return the function that performs a command; what it needs is imported when it is called."""

    def perform(options: argparse.Namespace) -> None:
        options.out = sys.stdout
        # What Airflow logs must not be in the result, which programs read. It chooses the stream of
        # its log when it is imported first.
        with redirect_stdout(sys.stderr):
            from airflow_provider_cdm.cli import commands

            commands.perform(name, options)

    perform.__name__ = name
    return perform
