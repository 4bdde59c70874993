"""Vectors on LanceDB: a local directory by default, object storage by URL."""
