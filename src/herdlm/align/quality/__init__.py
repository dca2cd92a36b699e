"""Quality control of dialogs and prompts: steps that drop what harms training, with a reason for each drop."""
