"""Retrieval quality: rankings of labelled images, and figures about rankings, codes and buckets.

Plain functions over arrays. They read no file and run no network.
"""
