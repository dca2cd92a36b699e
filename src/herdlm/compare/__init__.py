"""One model against another: what a change did to it."""
