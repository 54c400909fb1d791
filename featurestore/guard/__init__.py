"""What a hostile file could make a decoder do, refused before it decodes."""
