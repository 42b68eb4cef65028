"""What all commands share: flags whose errors are one line."""

import sys

from absl import app, flags


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line, as `absl.app.run` asks; what is wrong with it is said in one line.

    Raises:
      SystemExit: names the flag, the field or the file.
    """
    try:
        app.define_help_flags()
        rest = flags.FLAGS(argv)
        # A config file that could not be loaded says so only when it is first read.
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            flags.FLAGS.config.get("recipe")
        return rest
    except OSError as error:
        sys.exit(f"error: the config file cannot be read: {str(error).splitlines()[-1].strip()}")
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except (KeyError, AttributeError) as error:
        problem = str(error.args[0]).replace("\\n", ". ").replace("\\", "").replace("'", "").strip('"')
        sys.exit(f"error: no configuration field {problem}")
    except (TypeError, ValueError) as error:
        sys.exit(f"error: {error}")


def refuse_words(argv: list[str]) -> None:
    """Refuses what is left of a command line that takes flags only, the command itself first.

    Raises:
      SystemExit: names it.
    """
    if argv[1:]:
        sys.exit(
            f"error: {' '.join(argv[1:])!r} belongs to no flag; begin a flag with --, and quote a value that "
            "holds blanks"
        )
