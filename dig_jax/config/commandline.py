"""The command line every entry point shares: `--config F [--set a.b=c ...] [--run-dir D]`."""

import argparse
import dataclasses

from dig_jax.common.commandline import add_settings, place_of
from dig_jax.config import Config, load_config


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --config, --set and --run-dir to a parser that may have more of its own."""
    parser.add_argument(
        "--config", type=place_of, required=True, metavar="F", help="a file of configs/"
    )
    add_settings(parser, "one field of the config, by its dotted path")
    parser.add_argument(
        "--run-dir", type=place_of, metavar="D", help="run folder, instead of the config's"
    )


def config_from(args: argparse.Namespace) -> Config:
    """The Config that the arguments of `add_config_arguments` name."""
    config = load_config(args.config, args.settings)
    return dataclasses.replace(config, run_dir=args.run_dir) if args.run_dir else config


def parse_config(argv: list[str] | None = None, description: str | None = None) -> Config:
    """Config straight from a command line (`sys.argv` when None).

    A wrong field, value or rule ends the program with its message and status 2.
    """
    parser = argparse.ArgumentParser(description=description)
    return parse_with_config(parser, argv)[0]


def parse_with_config(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> tuple[Config, argparse.Namespace]:
    """`parse_config` for an entry with arguments of its own, which are in the namespace."""
    add_config_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return config_from(args), args
    except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
        parser.error(str(error.args[0] if error.args else error))
