"""Would this adapter work on this base model and this server?"""
