"""A function that a model may ask for.

What a model asks is data: its name must be in the list, its arguments must fit the schema, and what the
application injects always wins. Whatever goes wrong in the function comes out as a ToolError.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, overload

from pydantic import JsonValue, ValidationError

from agentflow.errors import SchemaInvalid
from agentflow.schemas import compile_schema
from llm_client.errors import CallCancelled, CallRefused, ToolArgumentsInvalid, ToolError, ToolFailed
from llm_client.spec import RequestContext
from llm_client.tools.docstring import described
from llm_client.tools.output import MAX_CHARS, ResultUnreadable, as_text
from llm_client.tools.signature import SignatureUnsuitable, signature_of, signature_with
from llm_client.tools.strict_json import Unreadable, read_arguments
from llm_client.tools.threads import in_thread

MOST_THREADS = 32
"""Calls of one blocking function at the same time, those included that nobody waits for any more."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tool:
    """A function with what a model is told of it.

    `call` is sync or async; a sync one runs in a thread, and goes on there when its caller is cancelled. Without
    `parameters` the schema comes from its annotations and defaults, and descriptions from the section `Args:` of
    its docstring. A parameter of the type RequestContext, or named `context` without a type, gets the context of
    the call; one that is `Annotated[..., Injected]` gets what the caller injects. A model sees neither.

    `side_effect` says that a call changes something; then only `idempotent` makes it safe to repeat. `timeout_s`
    replaces the timeout of the middleware. Raises ToolError for a function or schema that cannot be a tool.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        side_effect: bool = False,
        idempotent: bool = False,
        timeout_s: float | None = None,
        max_result_chars: int = MAX_CHARS,
    ) -> None:
        self.name = name or getattr(call, "__name__", "")
        if not _NAME.fullmatch(self.name):
            raise ToolError(f"A tool cannot be named {self.name[:80]!r}: use letters, digits, _ and -, at most 64.")
        told = described(inspect.getdoc(call))
        self.description = told.text if description is None else description
        self.side_effect = side_effect
        self.idempotent = idempotent
        self.timeout_s = timeout_s
        self._call = call
        self._given = parameters
        self._max_result_chars = max_result_chars
        self._threads = threading.Semaphore(MOST_THREADS)
        try:
            self._signature = (
                signature_of(call, told.parameters) if parameters is None else signature_with(parameters, call)
            )
            self._schema = compile_schema(self._signature.schema)
        except (SignatureUnsuitable, SchemaInvalid) as exc:
            raise ToolError(f"The function {self.name} cannot be a tool: {exc}.", tool=self.name) from exc

    def told_as(
        self, name: str, *, description: str | None = None, parameters: Mapping[str, Any] | None = None
    ) -> Tool:
        """The same function, told to models in other words; what is left out stays. Raises ToolError."""
        return Tool(
            self._call,
            name=name,
            description=self.description if description is None else description,
            parameters=self._given if parameters is None else parameters,
            side_effect=self.side_effect,
            idempotent=self.idempotent,
            timeout_s=self.timeout_s,
            max_result_chars=self._max_result_chars,
        )

    def __repr__(self) -> str:
        return f"Tool({self.name})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself."""
        return self._call(*args, **kwargs)

    @property
    def repeatable(self) -> bool:
        """Whether a call that may have done its work can be made again."""
        return self.idempotent or not self.side_effect

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of what a model may give."""
        return self._schema.source

    @property
    def needs(self) -> frozenset[str]:
        """What the caller must inject."""
        return self._signature.required

    def spec(self) -> dict[str, JsonValue]:
        """OpenAI's form of a function tool."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    async def invoke(
        self, arguments: str, context: RequestContext | None = None, *, injected: Mapping[str, Any] | None = None
    ) -> str:
        """Call it with the text that a model wrote; what it gives back is for the model to read.

        Raises ToolArgumentsInvalid, ToolFailed; CallRefused and CallCancelled where the function meets them.
        """
        return await self.call(self.parse(arguments), context, injected=injected)

    def parse(self, arguments: str) -> dict[str, Any]:
        """The arguments in a model's text, checked by the schema. Raises ToolArgumentsInvalid."""
        try:
            values = read_arguments(arguments)
        except Unreadable as exc:
            raise self._invalid(str(exc)) from exc
        self._check(values)
        return values

    async def call(
        self,
        arguments: Mapping[str, Any],
        context: RequestContext | None = None,
        *,
        injected: Mapping[str, Any] | None = None,
    ) -> str:
        """`invoke` with arguments that were read before; they are checked again."""
        self._check(arguments)
        injections = self._signature.injections(context or RequestContext(), injected or {})
        if missing := sorted(self.needs - injections.keys()):
            raise ToolFailed(f"The tool {self.name} needs the injected value '{missing[0]}'.", tool=self.name)
        try:
            result = await self._run({**self._coerced(arguments), **injections})
            return as_text(result, max_chars=self._max_result_chars)
        except _OURS:
            raise
        except ResultUnreadable as exc:
            raise ToolFailed(f"The tool {self.name} failed: {exc}.", tool=self.name) from exc
        except asyncio.CancelledError as exc:
            # a function that ends its own task's wait would otherwise vanish from a task group without a trace
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise ToolFailed(f"The tool {self.name} was cancelled from inside.", tool=self.name) from exc
        except (Exception, SystemExit) as exc:
            # the name of the error only: its text may hold secrets, and this goes to the model
            raise ToolFailed(f"The tool {self.name} failed with {type(exc).__name__}.", tool=self.name) from exc

    def _check(self, arguments: Mapping[str, Any]) -> None:
        if problem := self._schema.check(dict(arguments)):
            raise self._invalid(problem)

    def _coerced(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._signature.coerced(arguments)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            raise self._invalid(f"{'.'.join(map(str, ('$', *first['loc'])))}: {first['msg']}") from exc

    def _invalid(self, problem: str) -> ToolArgumentsInvalid:
        return ToolArgumentsInvalid(f"The arguments of the tool {self.name} are wrong: {problem}.", tool=self.name)

    async def _run(self, values: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._call) or inspect.iscoroutinefunction(type(self._call).__call__):
            return await self._call(**values)
        if not self._threads.acquire(blocking=False):
            raise ToolFailed(f"The tool {self.name} is still busy with {MOST_THREADS} calls.", tool=self.name)
        result = await in_thread(partial(self._call, **values), ended=self._threads.release)
        return await result if inspect.isawaitable(result) else result


_OURS = (ToolError, CallRefused, CallCancelled)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(**options: Any) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """`@tool`, or `@tool(name=..., side_effect=True)` with the options of Tool. Raises ToolError."""
    if function is not None:
        return Tool(function)
    return lambda wanted: Tool(wanted, **options)
