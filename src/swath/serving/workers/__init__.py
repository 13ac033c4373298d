"""The work behind the routes: searches, tiles, uploads, in bounded worker pools."""
