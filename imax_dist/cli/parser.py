"""How the command line is read: a line of help an option, errors with the nearest option or command."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from imax_dist.errors import ImaxError

HELP_COLUMN = 28
USAGE_ERROR = 2


class OneLine(argparse.RawDescriptionHelpFormatter):
    """``-o, --out FILE   what it is``: the value once, and room for short names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        """``imax plan --gpus CLUSTER [MANIFEST] [options]``: what has to be given, and what may."""
        if usage is None:
            needed = [action for action in actions if action.option_strings and action.required]
            places = [action for action in actions if not action.option_strings]
            words = [self._prog, *map(self._format_action_invocation, needed)]
            words += [self._format_args(a, self._get_default_metavar_for_positional(a)) for a in places]
            usage = " ".join(words if prefix == "" else [*words, "[options]"])  # "": the start of a command's
        return super()._format_usage(usage, actions, groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Line by line, so that an example keeps its lines."""
        lines = (textwrap.fill(line, width, subsequent_indent=indent) for line in text.splitlines())
        return "\n".join(lines)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "N" if action.type is int else "X" if action.type is float else action.dest.upper()

    def _get_default_metavar_for_positional(self, action: argparse.Action) -> str:
        return action.dest.upper()

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class VerbParser(argparse.ArgumentParser):
    """The options of a command, or of a command of a command."""

    of_user: Callable[[argparse.Namespace], Mapping[str, Any]] | None = None
    """What a user has put into a file of their own, in place of this command's defaults."""
    kind = "command"
    """What its sub-commands are."""
    listed = "--help lists the commands"
    """Where they are found."""
    later: Callable[[Any], None] | None = None
    """Declares the rest once it is needed: the options of every study are no other command's business."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": OneLine, **settings})
        about = "show the traceback of an error"  # no default: what stands before a sub-command is kept
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=about)
        self.set_defaults(parser=self)

    def declared(self) -> VerbParser:
        """This parser, with what it declares later."""
        declare, self.later = self.later, None
        if declare is not None:
            declare(self)
        return self

    def format_help(self) -> str:
        self.declared()
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; the user's defaults stand behind what the command line says."""
        self.declared()
        found, extras = super().parse_known_args(args, namespace)
        try:
            own = {} if self.of_user is None or extras else self.of_user(found)
        except ImaxError as error:
            self.exit(error.exit_code, f"{self.prog}: {error}\n")
        if not own:
            return found, extras
        self.set_defaults(**own)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """One sentence on stderr, exit code 2."""
        if found := re.search(r"(--?[\w-]+): expected one argument$", message):
            message += f"; a value that begins with a dash is written {found[1]}=-..."
        self.exit(USAGE_ERROR, f"{self.prog}: {message} ({self.prog} --help lists the options)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A command of this command that does not exist: what was probably meant, in place of all names."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            near = difflib.get_close_matches(str(value), list(action.choices), n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]}?" if near else ""
            text = f"there is no {self.kind} {value!r}{meant} ({self.prog} {self.listed})"
            self.exit(USAGE_ERROR, f"{self.prog}: {text}\n")
        super()._check_value(action, value)

    def parse_all(self, arguments: Sequence[str] | None, options: Any = None) -> argparse.Namespace:
        """All ``arguments``; what is left over is an error of the command that had it."""
        parsed: argparse.Namespace
        parsed, extras = self.parse_known_args(arguments, options)
        if extras:
            parsed.parser._refuse(extras, parsed)
        return parsed

    def _refuse(self, extras: Sequence[str], options: argparse.Namespace) -> NoReturn:
        """Say what is wrong with words that no option and no argument takes."""
        unknown = next((word for word in extras if word.startswith("-") and len(word) > 1), None)
        if unknown is not None:
            name = unknown.partition("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1, cutoff=0.6)
            self.error(f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else ""))
        prompt = getattr(options, "prompt", None)
        if prompt is not None:
            whole = " ".join([prompt, *extras])
            self.error(f'quote the prompt: {self.prog} "{whole}"')
        self.error(f"too many arguments: {' '.join(extras)}")


class FrontPage(VerbParser):
    """The first help page: a line for each command, or for neighbours alike, on a small screen."""

    @property
    def verbs(self) -> dict[str, VerbParser]:
        """The commands by name."""
        return dict(self._verbs().choices)

    def format_help(self) -> str:
        alike = itertools.groupby(self._verbs()._choices_actions, key=lambda verb: verb.help)
        named = [(", ".join(verb.dest for verb in verbs), about) for about, verbs in alike]
        lines = [f"  {names:<12}{'' if len(names) < 12 else '  '}{about}" for names, about in named]
        return "\n".join([f"{self.description}", "", *lines, "", f"{self.epilog}", ""])

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but what a command does not know is its error, with what was probably meant."""
        options = self.parse_all(args, namespace)
        if getattr(options, "verb", "") is None:
            self.error("give a command; imax --help lists them")
        return options

    def error(self, message: str) -> NoReturn:
        """One sentence on stderr, exit code 2."""
        self.exit(USAGE_ERROR, f"imax: {message}\n")

    def _verbs(self) -> Any:
        return next(action for action in self._actions if isinstance(action, argparse._SubParsersAction))
