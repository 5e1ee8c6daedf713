"""Ask the models that write and judge instructions, and journal their replies so that no answered call is made again."""
