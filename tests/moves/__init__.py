"""Items that change hands: transfers, disputes, orphans."""
