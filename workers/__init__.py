"""Message-driven ingestion and search: settings, ledger, queues, tasks, and their client."""
