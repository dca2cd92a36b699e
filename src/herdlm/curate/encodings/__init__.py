"""Character encodings as browsers have them: labels, decoders that replace what is damaged, prescan and detection."""
