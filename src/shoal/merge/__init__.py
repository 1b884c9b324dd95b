"""Tensors of several models in, tensors of one model out: rules, outer optimisers, streaming merge of files.

The package is callable: ``shoal.merge(models, ...)`` is `shoal.merge.library.merge`.  (A function of that name in the
front door would be hidden as soon as anybody imports a module of this package.)
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    @property
    def __wrapped__(self) -> Any:
        """For `inspect.signature`."""
        from shoal.merge.library import merge

        return merge

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        from shoal.merge.library import merge

        return merge(*args, **keywords)


sys.modules[__name__].__class__ = _CallableModule
