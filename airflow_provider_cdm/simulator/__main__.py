"""The command line of the simulator: ``python -m airflow_provider_cdm.simulator``."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import shlex
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from airflow_provider_cdm.simulator.demo.folder import DEFAULT, DemoFolder
from airflow_provider_cdm.simulator.errors import MissingExtraError

DEFAULT_PORT = 8642


def main(arguments: list[str] | None = None) -> int:
    """Run the simulator until it is interrupted.

    :param arguments: arguments of the command line; default those of the process.
    :returns: exit status: 0 after Ctrl-C or SIGTERM, 2 if the simulator cannot start.
    """
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        return _serve(options, stop)
    except (MissingExtraError, ValueError, OSError) as exc:
        text = str(exc)
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            text += "\nAnother simulator may be running; --port chooses another port."
        lines = text.replace("\n", "\n  ")
        sys.stderr.write(f"The simulator cannot start:\n  {lines}\n")
        return 2


def _serve(options: argparse.Namespace, stop: threading.Event) -> int:
    from airflow_provider_cdm.simulator import CdmSimulator
    from airflow_provider_cdm.simulator.config.config import UserWithRandomPassword, load

    with ExitStack() as stack:
        demo = DemoFolder(options.demo) if options.demo else None
        if demo is not None:
            stack.enter_context(demo.lock())
        config = load(demo.config if demo else options.config)
        if options.quotas:
            config = dataclasses.replace(config, quotas=options.quotas)
        if options.tls is not None:
            file = str(options.tls.absolute()) if options.tls.name else config.certificate
            config = dataclasses.replace(config, tls=True, certificate=file)
        simulator = stack.enter_context(
            CdmSimulator(
                config, host=options.host, port=options.port, allow_any_host=options.allow_any_host
            )
        )
        sys.stdout.write(
            f"CDM simulator: {simulator.url}\n"
            f"export AIRFLOW_CONN_CDM_DEFAULT={shlex.quote(simulator.connection_json)}\n"
        )
        for user in simulator.config.users:
            if isinstance(user, UserWithRandomPassword):
                sys.stdout.write(f"Password of user {user.name}, for this start: {user.password}\n")
        if demo is not None:
            sys.stdout.write(demo.instructions(demo.fill(), simulator.connection_uri))
        sys.stdout.flush()
        stop.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_cdm.simulator",
        description="An offline simulator of Huawei Cloud CDM and IAM.",
    )
    content = parser.add_mutually_exclusive_group()
    content.add_argument("--config", metavar="FILE", help="YAML: users, clusters, links, jobs")
    content.add_argument(
        "--demo",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        const=Path(DEFAULT),
        help="bring databases with rows, jobs that move them, and DAGs to copy; they are kept in "
        "this folder, by default %(const)s in the working folder",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default %(default)s")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="default %(default)s; 0 for any free port"
    )
    parser.add_argument(
        "--allow-any-host",
        action="store_true",
        help="allow a host that other machines can reach; the simulator is not protected",
    )
    parser.add_argument(
        "--tls",
        metavar="FILE",
        nargs="?",
        type=Path,
        const=Path(),
        help="serve HTTPS, with a certificate that is made at each start; clients find it in this "
        "file, by default in a temporary one that the connection names",
    )
    parser.add_argument(
        "--quotas", choices=("off", "documented"), help="overrides the configuration file"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
