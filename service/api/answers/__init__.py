"""What the dialects answer, as types: `/openapi.json` is made from them, and tests hold the service
to it.
"""
