"""The SQL ledger: jobs, their items and pages, and searches with their results.

SQLite by default, PostgreSQL by URL, one code for both. The queue carries references; what is true
stands here, so a lost message loses nothing.
"""

from workers.ledger.database import Database
from workers.ledger.items import ItemLedger, Outcome, Reference, Work
from workers.ledger.jobs import JobLedger, NewJob
from workers.ledger.pages import Page, PageLedger
from workers.ledger.searches import NewSearch, SearchLedger, SearchWork

__all__ = [
    "Database",
    "ItemLedger",
    "JobLedger",
    "Ledger",
    "NewJob",
    "NewSearch",
    "Outcome",
    "Page",
    "PageLedger",
    "Reference",
    "SearchLedger",
    "SearchWork",
    "Work",
]


class Ledger:
    """All of it over one database."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.jobs = JobLedger(self.database)
        self.items = ItemLedger(self.database)
        self.pages = PageLedger(self.database)
        self.searches = SearchLedger(self.database)

    def close(self) -> None:
        """Give all connections back; the ledger can be used no more."""
        self.database.close()
