"""A dispatcher that runs pipelines on a Dask cluster (extra `dask`)."""

from spine_async.dispatch.dask.dispatcher import DaskDispatcher

__all__ = ["DaskDispatcher"]
