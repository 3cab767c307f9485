"""The service keeps to its schema, whatever is sent: bodies that fit it, and bodies that don't."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings

from tests.support.fakes import FakeRanker
from tests.support.schema import UNWANTED, schema_over
from tests.support.service import document_of, served

APP = served(ranker=FakeRanker())
# Bodies are large to make, whichever machine it is.
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
SCHEMA = schema_over(APP, asyncio.run(document_of(APP)))


@SCHEMA.parametrize()
@settings(max_examples=20, suppress_health_check=SLOW, deadline=None)
def test_every_answer_is_one_that_the_schema_tells_of(case: Any) -> None:
    case.call_and_validate(excluded_checks=UNWANTED)
