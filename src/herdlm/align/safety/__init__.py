"""Guards: labeled prompts and answers as training dialogs in Llama Guard 3's protocol, and measures of a guard."""
