"""The site: a JSON API described by OpenAPI, and the pages that use it."""
