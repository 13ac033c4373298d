"""Errors of recipes: every problem with its key and the nearest valid one."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from swath.encoders.protocol import encoders
from swath.errors import SwathError, suggest
from swath.objectives.protocol import objectives
from swath.training.config.sections import (
    ComponentConfig,
)


def _listed(where: str, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return f"{where}: {len(problems)} problems:\n" + "\n".join(f"  {problem}" for problem in problems)


def format_validation_error(
    error: ValidationError, model: type[BaseModel], where: str, prefix: str = ""
) -> str:
    """The problems of a validation, a line each, with the place `where`."""
    return _listed(where, _problems(error, model, prefix))


def _problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """A line for each of pydantic's problems: ``training.epocs: unknown key. Did you mean 'epochs'?``."""
    lines: dict[str, str] = {}  # by place: a union reports each of its members
    for problem in error.errors(include_url=False):
        parent = model
        parts: list[str] = []
        for part in problem["loc"]:
            if isinstance(part, str) and part in parent.model_fields:
                annotation = parent.model_fields[part].annotation
                if (
                    isinstance(annotation, type)
                    and issubclass(annotation, BaseModel)
                    and part != problem["loc"][-1]
                ):
                    parent = annotation
            elif isinstance(part, str) and problem["type"] != "extra_forbidden":
                continue  # the name of a union's member, not a key
            parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
        place = (prefix + "".join(parts).removeprefix(".")).removesuffix(".")
        shown = problem["input"]
        if problem["type"] == "extra_forbidden":
            said = f"unknown key.{suggest(str(problem['loc'][-1]), list(parent.model_fields))}"
        elif problem["type"] == "missing":
            said = "missing; add it"
        elif problem["type"] == "value_error":
            said = problem["msg"].removeprefix("Value error, ")
        else:
            message = problem["msg"].removeprefix("Input should be ")
            if problem["type"] in ("model_type", "dict_type"):
                message = "a section with keys of its own"
            elif problem["type"] == "string_pattern_mismatch":
                message = "letters, digits, _, . and -, from a letter to a letter or digit"
            said = f"should be {message}, but is {shown!r:.60} ({_kind(shown)})"
        if (
            place in lines
            and " or " not in lines[place]
            and "should be" in said
            and "should be" in lines[place]
        ):
            first = lines[place].split("should be ", 1)[1].split(", but is")[0]
            said = said.replace("should be ", f"should be {first} or ", 1)
        lines[place] = said
    return [f"{place}: {said}" if place else said for place, said in lines.items()]


def _kind(value: Any) -> str:
    names = {
        str: "text",
        bool: "true/false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a section",
    }
    return names.get(type(value), "nothing" if value is None else type(value).__name__)


def _registered(place: str, name: str, registry: Any) -> str | None:
    try:
        registry.get(name)
    except SwathError as error:
        hint = " Recipes name registered things only, never Python paths." if set(name) & set(".:/") else ""
        return f"{place}: {error}{hint}"
    return None


def _encoder_problems(choice: ComponentConfig) -> list[str]:
    """Options against the signature of the registered constructor, names and types."""
    unknown = _registered("encoder.name", choice.name, encoders)
    if unknown:
        return [unknown]
    build = encoders.get(choice.name)
    parameters = inspect.signature(build).parameters
    target: Any = getattr(build, "func", build)
    target = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [name for name in parameters if name != "bands"]
    problems = []
    for key, value in choice.options.items():
        place = f"encoder.options.{key}"
        if key == "bands":
            problems.append(f"{place}: follows from the sensor; leave it out")
        elif key not in parameters:
            if not open_ended:
                problems.append(f"{place}: unknown option of {choice.name}.{suggest(key, known)}")
        elif key in hints:
            try:
                TypeAdapter(hints[key]).validate_python(value, strict=True)
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
                problems.append(f"{place}: should be {reason}, but is {value!r:.60} ({_kind(value)})")
    return problems


def _objective_problems(choice: ComponentConfig) -> list[str]:
    """Options against the objective's own config class."""
    unknown = _registered("objective.name", choice.name, objectives)
    if unknown:
        return [unknown]
    config = objectives.get(choice.name).config
    try:
        config.model_validate(choice.options)
    except ValidationError as error:
        return _problems(error, config, "objective.options.")
    return []
