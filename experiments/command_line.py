"""An experiment as a command: its options, and its errors in one line."""

import argparse
import errno
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tyro

from snnjax import compilation_cache, process
from snnjax.runs import PreemptedError


def parse(
    config: type,
    *,
    program: str,
    description: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> Any:
    """Return the dataclass ``config`` of the command line, over the preset it names."""
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
    stopped: str = "the same command resumes",
    resumes: bool = True,
    presets: Mapping[str, Any] | None = None,
) -> None:
    """Run an experiment as a command: an error, and how to resume, is one line.

    The process is set up first: memory and XLA's scheduler (`process.tune`) and, if the
    config has a ``cache``, the persistent compilation cache.

    Args:
        run: the experiment.
        config: its dataclass.
        program: command that starts it.
        description: of it.
        stopped: printed when it is interrupted.
        resumes: the same command resumes after an error of the system.
        presets: configs by name.
    """
    try:
        chosen = parse(
            config, program=program, description=description, presets=presets
        )
        process.tune()
        # A dry run measures how long compiling takes.
        if not getattr(chosen, "dry_run", False):
            keep_compiled(getattr(chosen, "cache", None))
        run(chosen)
    except (ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        kept = " Finished results are kept, and the same command resumes"
        known = error.errno is not None
        sys.exit(f"error: {describe_os_error(error)}{f'.{kept}' * (known and resumes)}")
    except PreemptedError as error:
        command = shlex.join([*program.split(), *sys.argv[1:]])
        print(f"{error}; resume with: {command}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; {stopped}")


def keep_compiled(folder: Path | None) -> None:
    """Keep compiled programs in a folder, or warn that it cannot be written."""
    if folder is None:
        return
    try:
        compilation_cache.enable(folder)
    except OSError as error:
        print(
            f"warning: {folder} cannot be written ({error.strerror}), so compiled "
            "programs are not kept; give another folder with --cache, or --cache None",
            file=sys.stderr,
        )


def describe_os_error(error: OSError) -> str:
    """Describe an error of the system, its file and the remedy; ours have all that."""
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
