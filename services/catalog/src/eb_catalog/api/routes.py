"""The table of the catalog's routes."""

from eb_kit.web import Routes

routes = Routes("catalog")
