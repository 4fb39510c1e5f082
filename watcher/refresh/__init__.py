"""Manual refreshes: taken in, followed, answered; dry runs."""
