"""Fields of a command's dataclass as tyro reads them: with help texts that flow, and flags that say what they do."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo


def registry() -> ConstructorRegistry:
    """Return what tyro needs to read dataclasses in this way."""
    rules = ConstructorRegistry()
    rules.struct_rule(_dataclass_rule)
    return rules


def description(options: type) -> str:
    """Return the docstring of the class, its paragraphs in a line each, because tyro breaks them at any digit."""
    return "\n\n".join(map(_joined, inspect.cleandoc(options.__doc__ or "").split("\n\n")))


def merge_repeated(options: type, arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` with the values of a repeated sequence option gathered behind its first flag.

    ``--dataset A --dataset B`` becomes ``--dataset A B``; tyro alone would keep only B. The last value of
    another repeated option counts, as scripts that add to a command line expect, and a line says so.
    """
    groups: list[list[str]] = [[]]  # each starts with a flag, but the first
    for argument in arguments:
        if re.match("--[A-Za-z]", argument):
            groups.append([])
        groups[-1].append(argument)
    repeats = dict(_flags(options))
    merged, first = [groups[0]], dict[str, list[str]]()
    for group in groups[1:]:
        name, equals, value = group[0].partition("=")
        name = name.replace("_", "-")
        if name not in repeats and name.startswith("--no-"):
            name = f"--{name.removeprefix('--no-')}"
        if name in first and repeats.get(name) == "several":
            first[name] += [value] * bool(equals) + group[1:]
            continue
        if name in first and repeats.get(name) == "once":
            _notice(f"{name} is given twice: the last one counts, {' '.join(group)}")
        first[name] = group
        merged.append(group)
    return [argument for group in merged for argument in group]


def _flags(options: type, prefix: str = "--") -> Iterator[tuple[str, Literal["once", "several", "append"]]]:
    """Yield each flag of the class as it is written, and how often it takes values."""
    for name, annotation in field_types(options).items():
        flag = prefix + name.replace("_", "-")
        kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
        if dataclasses.is_dataclass(kind):
            yield from _flags(cast(type, kind), f"{flag}.")
        elif tyro.conf.UseAppendAction in notes:
            yield flag, "append"
        else:  # a tuple or list, or an optional one
            yield flag, "several" if {tuple, list} & {get_origin(part) for part in (kind, *get_args(kind))} else "once"


@cache  # once for each text: a command with presets reads its options twice
def _notice(text: str) -> None:
    print(text)


@cache
def field_types(options: type) -> dict[str, Any]:
    """Return the types of the fields, with what ``Annotated`` adds."""
    hints = get_type_hints(options, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(options)}


def _dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not dataclasses.is_dataclass(info.type):
        return None
    docs = _field_docs(info.type)
    specs = []
    for field in dataclasses.fields(info.type):
        default = _default(field, info.default)
        annotation = field_types(info.type)[field.name]
        if annotation is bool and default is not True:  # --no-NAME only where it changes something
            annotation = Annotated[bool, tyro.conf.FlagCreatePairsOff]
        specs.append(StructFieldSpec(field.name, annotation, default, docs.get(field.name)))
    return StructConstructorSpec(instantiate=info.type, fields=tuple(specs))


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    """Return the field's value in ``instance``, a preset, where there is one, else its default."""
    if dataclasses.is_dataclass(instance):
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING_NONPROP if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def _field_docs(options: type) -> dict[str, str]:
    """Return the docstring under each field, of the class or else of the nearest base that has one, on one line."""
    docs: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError):  # made without a file, as at a prompt
            continue
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                docs[field.target.id] = _joined(ast.literal_eval(below.value))
    return docs


def _joined(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
