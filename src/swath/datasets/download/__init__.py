"""How published data gets here: resumable downloads, and archives unpacked safely."""
