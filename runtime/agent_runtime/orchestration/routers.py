"""Routers: operators that hand an input on to one of several, by rule, by its words, by a model, or by turns."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from agent_runtime.errors import OrchestrationError
from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.operators import Operator, Runnable, as_operator
from agent_runtime.orchestration.results import OperatorResult, reading
from llm_client.agent.core import Agent

Rule = Callable[[Mapping[str, Any]], bool]
ROUTE = "route"


class Router(Operator):
    """Runs one of its `routes`, the one that `choose` names. The result's data say which, as `route`.

    An input that fits no route goes to `default`; without one the router fails. A subclass gives `choose`. Raises
    OrchestrationError where there is no route, or `default` is none of them.
    """

    def __init__(
        self,
        routes: Mapping[str, Runnable],
        *,
        default: str | None = None,
        name: str = "router",
        agent: Agent | None = None,
    ) -> None:
        super().__init__(agent)
        if not routes:
            raise OrchestrationError("A router needs at least one route.")
        self._name = name
        self.routes = {route: as_operator(item, route) for route, item in routes.items()}
        self._default = self.known(default) if default is not None else None

    @property
    def name(self) -> str:
        return self._name

    @abstractmethod
    async def choose(self, input_data: Mapping[str, Any], context: OperatorContext) -> str | None:
        """The name of a route, None for the default."""
        ...

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        children = Children(context)
        route = await self.choose(input_data, context) or self._default
        if route is None:
            routes = ", ".join(self.routes)
            return OperatorResult.failed(
                f"no route fits, and there is no default; the routes: {routes}", code="no_route"
            )
        result = await self._follow(children, self.known(route), input_data)
        parts = {route: result}
        if not result.success:
            return result.failing(route, parts)
        return replace(result, data={**result.data, ROUTE: route}).over(parts)

    def known(self, route: str) -> str:
        """Raises OrchestrationError for a name that is no route."""
        if route not in self.routes:
            raise OrchestrationError(
                f"The router '{self._name}' has no route '{route}'; it has: {', '.join(self.routes)}."
            )
        return route

    async def _follow(self, children: Children, route: str, input_data: dict[str, Any]) -> OperatorResult:
        return await children.run(route, self.routes[route], input_data)


class RuleRouter(Router):
    """By rule: the first of `rules`, pairs of a function and a route, whose function holds for the input."""

    def __init__(
        self,
        routes: Mapping[str, Runnable],
        *,
        rules: Sequence[tuple[Rule, str]],
        default: str | None = None,
        name: str = "router",
    ) -> None:
        super().__init__(routes, default=default, name=name)
        self._rules = tuple((rule, self.known(route)) for rule, route in rules)

    async def choose(self, input_data: Mapping[str, Any], context: OperatorContext) -> str | None:
        return next((route for rule, route in self._rules if rule(input_data)), None)


class KeywordRouter(Router):
    """By content: the route of whose `keywords` most are in the input's text, the first one of equals.

    A keyword is a word or some words; letter case does not count, and `cat` is not in `concatenate`.
    """

    def __init__(
        self,
        routes: Mapping[str, Runnable],
        *,
        keywords: Mapping[str, Sequence[str]],
        default: str | None = None,
        name: str = "router",
    ) -> None:
        super().__init__(routes, default=default, name=name)
        self._patterns = {
            self.known(route): [re.compile(rf"(?<!\w){re.escape(word.casefold())}(?!\w)") for word in words]
            for route, words in keywords.items()
        }

    async def choose(self, input_data: Mapping[str, Any], context: OperatorContext) -> str | None:
        text = reading(input_data).casefold()
        hits = {
            route: sum(pattern.search(text) is not None for pattern in patterns)
            for route, patterns in self._patterns.items()
        }
        best = max(hits, key=lambda route: hits[route], default=None)
        return best if best is not None and hits[best] else None


class ModelRouter(Router):
    """By model: an agent reads the input and what each route is for, and names one.

    What it answers is data: the name of a route, alone or the only one in its answer; anything else is no choice.
    """

    def __init__(
        self,
        routes: Mapping[str, Runnable],
        *,
        agent: Agent,
        descriptions: Mapping[str, str] | None = None,
        default: str | None = None,
        name: str = "router",
    ) -> None:
        super().__init__(routes, default=default, name=name, agent=agent)
        told = {self.known(route): text for route, text in (descriptions or {}).items()}
        self._told = "\n".join(f"- {route}: {told[route]}" if route in told else f"- {route}" for route in self.routes)

    async def choose(self, input_data: Mapping[str, Any], context: OperatorContext) -> str | None:
        prompt = (
            f"Choose who handles this request. They are:\n{self._told}\n\n"
            f"The request:\n{reading(input_data)}\n\nAnswer with one name from the list and nothing else."
        )
        answer = await self.agent.run(prompt)
        named = [route for route in self.routes if re.search(rf"(?<![\w-]){re.escape(route)}(?![\w-])", answer.content)]
        exact = answer.content.strip().strip("\"'`.")
        return exact if exact in self.routes else named[0] if len(named) == 1 else None


class RoundRobinRouter(Router):
    """By turns."""

    def __init__(self, routes: Mapping[str, Runnable], *, name: str = "router") -> None:
        super().__init__(routes, name=name)
        self._turn = count()

    async def choose(self, input_data: Mapping[str, Any], context: OperatorContext) -> str | None:
        return list(self.routes)[next(self._turn) % len(self.routes)]


class LeastBusyRouter(Router):
    """By load: the route with the fewest inputs of this router in work, the first one of equals."""

    def __init__(self, routes: Mapping[str, Runnable], *, name: str = "router") -> None:
        super().__init__(routes, name=name)
        self._busy: Counter[str] = Counter()

    async def choose(self, input_data: Mapping[str, Any], context: OperatorContext) -> str | None:
        return min(self.routes, key=lambda route: self._busy[route])

    async def _follow(self, children: Children, route: str, input_data: dict[str, Any]) -> OperatorResult:
        self._busy[route] += 1
        try:
            return await super()._follow(children, route, input_data)
        finally:
            self._busy[route] -= 1
