"""`python -m worker` and `loradrop serve`: vLLM's own command line and server, with our flags added."""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped, and return the exit code. `arguments` default to the process's own."""
    from vllm import logger
    from vllm.entrypoints.cli.serve import FlexibleArgumentParser, ServeSubcommand, make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

    from loradrop.catalog.settings import SettingsInvalid
    from loradrop.worker.server.vllm_hooks import register
    from loradrop.worker.settings import NAMED, settings_from

    cli_env_setup()
    register()
    parser = make_arg_parser(FlexibleArgumentParser(prog="loradrop serve"))
    args = parser.parse_args(list(sys.argv[1:] if arguments is None else arguments))
    setattr(args, NAMED, True)
    try:
        settings_from(args, os.environ)  # the parser has checked the flags, not the variables
    except SettingsInvalid as error:
        parser.error(error.message)
    if hasattr(logger, "configure_logging_from_args"):  # from 0.31 on; before, variables alone configure it
        logger.configure_logging_from_args(args)
    serve = ServeSubcommand()
    serve.validate(args)
    try:
        serve.cmd(args)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
