"""An experiment as a command: its options, its errors in a line, how to go on."""

import argparse
import errno
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tyro

from experiments import compilation_cache, huge_pages, one_at_a_time, stopping


def parse(
    config: type,
    *,
    program: str,
    description: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> Any:
    """The dataclass ``config`` from the command line, over the preset it names."""
    words, base = sys.argv[1:], {}
    if presets:
        first = argparse.ArgumentParser(program, add_help=False, allow_abbrev=False)
        first.add_argument("--preset", choices=tuple(presets))
        found, words = first.parse_known_args(words)
        names = ", ".join(presets)
        description = f"{description} --preset NAME sets what is not given: {names}."
        base = {"default": presets[found.preset]} if found.preset else {}
    return tyro.cli(config, prog=program, description=description, args=words, **base)


def run_as_command(
    run: Callable[[Any], object],
    config: type,
    *,
    program: str,
    description: str | None = None,
    stopped: str = "the same command goes on from here",
    resumes: bool = True,
    presets: Mapping[str, Any] | None = None,
) -> None:
    """Run an experiment as a command: what is wrong, and how to go on, is one line.

    The process is set up for it first: for less memory, for larger pages of it and,
    where the config has a ``cache``, with the programs compiled before.

    Args:
        run: the experiment.
        config: its dataclass.
        program: how it is started.
        description: of it.
        stopped: said when it is interrupted.
        resumes: whether the same command goes on where the system refused something.
        presets: configs by name.
    """
    try:
        chosen = parse(
            config, program=program, description=description, presets=presets
        )
        one_at_a_time.use()
        huge_pages.use()
        # A dry run measures how long compiling takes.
        if not getattr(chosen, "dry_run", False):
            compilation_cache.enable(getattr(chosen, "cache", None))
        run(chosen)
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        kept = " What was finished is kept, and the same command goes on from there"
        known = error.errno is not None
        sys.exit(f"error: {of_the_system(error)}{f'.{kept}' * (known and resumes)}")
    except stopping.Stopped as reason:
        command = shlex.join([*program.split(), *sys.argv[1:]])
        print(f"{reason}; this goes on from there: {command}", file=sys.stderr)
        sys.exit(reason.code)
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; {stopped}")


def of_the_system(error: OSError) -> str:
    """What the system refused, where, and what to do; ours say all that already."""
    if error.errno is None:
        return str(error)
    fixes = {
        errno.ENOSPC: "make room there",
        errno.EDQUOT: "make room there, or ask for a larger quota",
        errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
        errno.EROFS: "give a folder that can be written",
        errno.EACCES: "give a folder that you may read and write",
        errno.EPERM: "give a folder that you may read and write",
        errno.ENOENT: "give a path that exists",
        errno.ENOTDIR: "give a folder, not a file",
        errno.EEXIST: "give a folder, not a file",
        errno.EIO: "look after that disk, or give a folder on another",
    }
    fix = fixes.get(error.errno, "see to it, or give another path")
    return f"{error.filename or 'a file'}: {error.strerror}; {fix}"
