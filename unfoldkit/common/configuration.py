"""Options as dataclasses: of commands, and the configuration of a training run, which is kept in the run's folder.

A configuration is a dataclass of sections, which are dataclasses of options. What changes no result may change
when a run is resumed: the section `machine`, where the data lie and how they are loaded.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from unfoldkit.common.console import described_parser, one_line_errors

FREE_SECTION, FREE_OPTIONS = "machine", {"data.root", "data.workers"}  # may change when a run is resumed
Configuration = TypeVar("Configuration")
Result = TypeVar("Result")


def run_parser(
    program: str, description: str | None, configuration: type[Any], example: str, out: str
) -> ArgumentParser:
    """Options of every section, --config for a file of them such as `example`, --out and --resume."""
    parser = described_parser(program, description)
    parser.add_argument("--config", action="config", help=f"a YAML configuration, such as {example}")
    for name, section in get_type_hints(configuration).items():
        parser.add_class_arguments(section, name)
    parser.add_argument("--out", type=str, default=out, help="folder for everything the run leaves")
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out from its last checkpoint"
    )
    return parser


def configured(configuration: type[Configuration], options: Namespace) -> Configuration:
    """The configuration that `options` of `run_parser` give."""
    sections = get_type_hints(configuration).items()
    return configuration(**{name: section(**options[name].as_dict()) for name, section in sections})


def require_folder(configuration: Any, out: Path, last: Path, resume: bool) -> None:
    """Raises ValueError where a run would lose or mix up one in `out`, FileNotFoundError where none can go on.

    One that was ended before its first checkpoint begins anew, which is said.
    """
    import yaml

    stored = out / "config.yaml"
    wanted = yaml.safe_load(yaml.safe_dump(asdict(configuration)))
    ended = out / "run.json"
    left = any(path.is_file() for path in (last, ended, out / "best.safetensors", out / "last.safetensors"))
    if resume and not last.is_file():
        if ended.is_file() or not stored.is_file():
            raise FileNotFoundError(f"{last}: no checkpoint to resume from")
        print(f"{out}: ended before its first checkpoint; the run begins anew")
    if left and not resume:
        raise ValueError(f"{out}: holds a run already; add --resume to continue it, or choose another --out")
    if resume:
        _require_same(configuration, wanted, stored)


def keep_configuration(configuration: Any, out: Path) -> None:
    """Write `out`/config.yaml, where the machine and the data of a run that is resumed may be others."""
    import yaml
    from lightning.pytorch.utilities import rank_zero_only

    from unfoldkit.common.files import write_whole

    out.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_dump(asdict(configuration), sort_keys=False)
    rank_zero_only(write_whole)(out / "config.yaml", content)


def _require_same(configuration: Any, wanted: dict[str, Any], stored: Path) -> None:
    """ValueError unless `stored` has what is wanted; an option that is younger than the run was at its default."""
    before = read_configuration(stored)
    for section in (name for name in wanted if name != FREE_SECTION):
        defaults = {field.name: field.default for field in fields(getattr(configuration, section))}
        known = defaults | before.get(section, {})
        for option, value in wanted[section].items():
            kept = known[option]
            if kept != value and f"{section}.{option}" not in FREE_OPTIONS:
                raise ValueError(
                    f"--{section}.{option} is {value}, but the run in {stored.parent} has {kept}; "
                    f"resume it with --config {stored}"
                )


def read_configuration(path: Path) -> dict[str, Any]:
    """The sections of a stored configuration; raises ValueError where the file holds anything else."""
    import yaml

    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable configuration ({error})") from error
    if not isinstance(stored, dict) or not all(isinstance(section, dict) for section in stored.values()):
        raise ValueError(f"{path}: expected sections of options, found {type(stored).__name__}")
    return stored


def run_with_options(
    program: str,
    description: str | None,
    function: Callable[..., Result],
    commands: Mapping[str, tuple[type[Any], dict[str, Any]]],
    arguments: Sequence[str] | None = None,
    left_out: Collection[str] = (),
) -> Result:
    """function(options, ...) of the command line: `options` of the dataclass that its command names, flat.

    The other parameters of `function` are options too. Errors end the program as in `one_line_errors`.

    commands: the dataclass of each command, and defaults that it gives to parameters of `function`.
    left_out: fields that are no options, and keep their defaults.
    """
    parser = described_parser(program, description)
    parser.add_argument("--config", action="config", help="Path to a configuration file.")
    chosen = parser.add_subcommands()
    for name, (kind, defaults) in commands.items():
        command = described_parser(f"{program} {name}", first_line := str(kind.__doc__).splitlines()[0])
        command.add_argument("--config", action="config", help="Path to a configuration file.")
        command.add_function_arguments(function, skip={"options"}, as_group=False)
        command.add_class_arguments(kind, as_group=False, skip=set(left_out))
        command.set_defaults(defaults)
        for action in command._actions:
            action.required = action.required and action.dest not in defaults
        chosen.add_subcommand(name, command, help=first_line)
    with one_line_errors(program):
        parsed = parser.parse_args(arguments)
        kind, _ = commands[parsed.subcommand]
        values = parsed[parsed.subcommand].as_dict()
        del values["config"]
        given = {field.name: values.pop(field.name) for field in fields(kind) if field.name in values}
        return function(kind(**given), **values)
