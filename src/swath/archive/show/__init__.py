"""How an archive is shown to people: notebooks, contact sheets, thumbnails."""
