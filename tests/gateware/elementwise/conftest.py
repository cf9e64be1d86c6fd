"""The POST unit with an elementwise unit, on the bench of the POST unit's tests."""

from ..post.conftest import post_bench, post_designs

__all__ = ["post_bench", "post_designs"]
