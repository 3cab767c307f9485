"""What schemathesis' command does to bodies on their way to real models: few tokens are asked for.

Named by SCHEMATHESIS_HOOKS.
"""

from typing import Any

import schemathesis

FEW = 4
LIMITS = ("max_tokens", "max_completion_tokens")
INT64_MAX = 2**63 - 1


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]
) -> None:
    """Less than was asked for, which makes no wrong body right and no right one wrong."""
    body = case.body
    if "completions" not in case.path or not isinstance(body, dict):
        return
    for name in LIMITS:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and FEW < value <= INT64_MAX:
            body[name] = FEW
    if all(body.get(name) is None for name in LIMITS):
        body["max_tokens"] = FEW
